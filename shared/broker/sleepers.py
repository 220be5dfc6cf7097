"""What workers say about waits in service time that are in no row, while the clock is advanced.

The process that advances the clock goes by it: what sleeps is woken at its moment, and what does not sleep is waited
for. Without Redis nothing is known, and nothing is processed either.
"""

from dataclasses import asdict, dataclass

import orjson
from pydantic import TypeAdapter
from redis.asyncio.client import Pipeline

from shared.broker.client import Broker
from shared.broker.stored import Count, UnixSeconds, read_stored

# A hash: a name of the process -> what it said last.
SLEEPERS_KEY = "payments:sleepers"
# Seconds for which it is kept.
KEPT_S = 60
REDIS_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleepers:
    """Claims of one worker that sleep in service time, and the next moments at which something wakes.

    `seen_at_s` is the real time before they were counted. `wakes_at_s` is the service time of the first moment, and
    `wakes_until_s` of the last one that may be taken together with it; None = nothing sleeps. All are Unix seconds.
    """

    count: Count
    seen_at_s: UnixSeconds
    wakes_at_s: UnixSeconds | None = None
    wakes_until_s: UnixSeconds | None = None


_SLEEPERS = TypeAdapter(Sleepers)


async def say_sleepers(broker: Broker, name: str, sleepers: Sleepers) -> None:
    """Say what sleeps in the process of this name. Raises BrokerUnavailable."""

    def add_commands(pipe: Pipeline) -> None:
        pipe.hset(SLEEPERS_KEY, name, orjson.dumps(asdict(sleepers)).decode())
        pipe.expire(SLEEPERS_KEY, KEPT_S)

    await broker.round_trip(add_commands, timeout_s=REDIS_TIMEOUT_S)


async def read_sleepers(broker: Broker) -> list[Sleepers]:
    """Return what every process has said last, also one that is gone. Raises BrokerUnavailable."""
    [said] = await broker.round_trip(lambda pipe: pipe.hgetall(SLEEPERS_KEY), timeout_s=REDIS_TIMEOUT_S)
    read = [read_stored(_SLEEPERS, each) for each in said.values()]
    return [sleepers for sleepers in read if sleepers is not None]
