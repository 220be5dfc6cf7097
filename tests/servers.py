"""Real servers for the tests: a PostgreSQL and a Valkey that can also be killed, restarted and paused.

Nothing here is shared between processes: each pytest worker, and each test that kills, has its own. They end with the
process that started them, also when that is killed (Linux).
"""

import contextlib
import signal
import time
from collections.abc import Callable

import psutil

from cli.demo_stage import free_port
from cli.embedded_valkey import EmbeddedValkey
from cli.local_postgres import LocalPostgres

STOP_TIMEOUT_S = 10
POLL_S = 0.02

__all__ = ["PostgresServer", "ValkeyServer", "free_port", "wait_until"]


def wait_until(condition: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    """Poll `condition`; raises AssertionError naming `what` when it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(POLL_S)


class PostgresServer(LocalPostgres):
    """A PostgreSQL of its own, with what a survival test does to it; killed and started again it keeps its URL.

    With `fsync` off (the default here) commits are as fast as memory and survive a kill of the server, not of the
    machine.
    """

    def __init__(self, *, fsync: bool = False, options: tuple[str, ...] = ()) -> None:
        super().__init__(fsync=fsync, options=options)

    @property
    def url(self) -> str:
        """Of the database `postgres`, in the plain form that DATABASE_URL takes."""
        return self.url_of("postgres")

    def stop(self) -> None:
        """See `LocalPostgres.stop`; a paused one is woken up first."""
        self.resume()
        super().stop()

    def kill(self) -> None:
        """SIGKILL the postmaster and return when its children are gone too; `start` recovers as after a crash."""
        family = self._family()
        super().kill()
        _gone, alive = psutil.wait_procs(family, timeout=STOP_TIMEOUT_S)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)

    def restart(self) -> None:
        """Kill it and start it again with its data."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP all of it: connections stay open and nobody answers."""
        self._signal_family(signal.SIGSTOP)

    def resume(self) -> None:
        """End `pause`."""
        self._signal_family(signal.SIGCONT)

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _family(self) -> list[psutil.Process]:
        if not self.is_running:
            return []
        assert self._child is not None
        postmaster = psutil.Process(self._child.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def _signal_family(self, number: signal.Signals) -> None:
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class ValkeyServer(EmbeddedValkey):
    """The Valkey of `payments up`, with what a survival test does to it."""

    def kill(self) -> None:
        """SIGKILL it; `start` begins an empty one on the same URL."""
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def restart(self) -> None:
        """Kill it and start an empty one."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP it: connections stay open and nobody answers."""
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End `pause`."""
        assert self._child is not None
        self._child.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """See `EmbeddedValkey.stop`; a paused one is woken up first."""
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)
        super().stop()
