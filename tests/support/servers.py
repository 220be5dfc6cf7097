"""Real servers for the tests: a PostgreSQL and a Valkey that can also be killed, restarted and paused.

Nothing here is shared between processes: each pytest worker, and each test that kills, has its own. They end with the
process that started them, also when that is killed (Linux).
"""

import contextlib
import signal

import psutil

from cli.local.postgres import LocalPostgres
from cli.local.service import free_port, wait_until
from cli.local.valkey import EmbeddedValkey

STOP_TIMEOUT_S = 10

__all__ = ["PostgresServer", "ValkeyServer", "free_port", "wait_until"]


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
        """See `LocalPostgres.stop`; a paused one is resumed first."""
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
        """SIGSTOP all of it: connections stay open and no answer comes."""
        self._signal_family(signal.SIGSTOP)

    def resume(self) -> None:
        """End `pause`."""
        self._signal_family(signal.SIGCONT)

    def drop_database(self, name: str) -> None:
        """Remove a database, also with clients connected to it."""
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
        """SIGSTOP it: connections stay open and no answer comes."""
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End `pause`."""
        assert self._child is not None
        self._child.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """See `EmbeddedValkey.stop`; a paused one is resumed first."""
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)
        super().stop()
