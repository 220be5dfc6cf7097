"""A master, a replica and three Sentinels that watch them, all on loopback."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.support.redis_processes import Make, RedisProcess
from tests.support.servers import wait_until

MASTER = "mymaster"
SENTINELS = 3
# A server counts as dead after so many milliseconds.
DOWN_AFTER_MS = 1000
FAILOVER_TIMEOUT_MS = 4000
WATCHED_WITHIN_S = 30


@dataclass(slots=True)
class Watched:
    """The servers by their ports, and the Sentinels."""

    servers: dict[int, RedisProcess]
    sentinels: list[RedisProcess]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{MASTER}/0"

    @property
    def master(self) -> RedisProcess:
        """The server that the last Sentinel calls the master; the first one may be dead."""
        with self.sentinels[-1].client() as client:
            state = client.sentinel_master(MASTER)
        return self.servers[int(state["port"])]

    def is_watched(self) -> bool:
        """Every Sentinel knows the replica and the other Sentinels."""
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                state = client.sentinel_master(MASTER)
            if (state["num-slaves"], state["num-other-sentinels"]) != (1, SENTINELS - 1):
                return False
        return True

    def has_failed_over(self, old: RedisProcess) -> bool:
        """Another server is the master, and takes writes."""
        master = self.master
        if master is old:
            return False
        try:
            with master.client() as client:
                role: list[bytes] = client.role()
        except redis.exceptions.ConnectionError:
            return False
        return role[0] == b"master"


@contextmanager
def watched(folder: Path, make: Make) -> Iterator[Watched]:
    """Run them for the length of the block."""
    with ExitStack() as stack:
        master = stack.enter_context(RedisProcess(folder / "master", make=make))
        replica = stack.enter_context(
            RedisProcess(folder / "replica", "--replicaof", "127.0.0.1", str(master.port), make=make)
        )
        lines = (
            f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 2",
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {MASTER} {FAILOVER_TIMEOUT_MS}",
        )
        sentinels = [
            stack.enter_context(RedisProcess(folder / f"sentinel-{number}", "--sentinel", make=make, lines=lines))
            for number in range(SENTINELS)
        ]
        found = Watched({master.port: master, replica.port: replica}, sentinels)
        wait_until(found.is_watched, timeout_s=WATCHED_WITHIN_S, what="the Sentinels know each other and the replica")
        yield found
