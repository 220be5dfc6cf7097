"""Workers whose clocks are apart: the same program with another `Clock` in the seam that every transaction asks."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from cli.processes import _prepared, _run, _with_runtime
from shared.config.settings import load_settings
from shared.database.clock import Clock
from shared.runtime import Runtime
from shared.service_time import ServiceTime
from worker.main import WorkerProcess


@dataclass(frozen=True, slots=True)
class Apart:
    """A clock that is ahead of another by seconds, or behind it."""

    clock: Clock
    by: timedelta

    async def now(self, connection: AsyncConnection) -> datetime:
        return await self.clock.now(connection) + self.by

    def real_now(self) -> datetime:
        return self.clock.real_now() + self.by

    @property
    def time(self) -> ServiceTime:
        return self.clock.time


@dataclass(frozen=True, slots=True)
class WorkerApart:
    """The program `payments worker` with its clock ahead by `by_s`; a forked process gets it by pickle."""

    by_s: float

    def __call__(self, _command: str) -> None:
        def worker(runtime: Runtime) -> WorkerProcess:
            runtime.database.clock = Apart(runtime.database.clock, timedelta(seconds=self.by_s))
            return WorkerProcess(runtime)

        _run(_with_runtime(_prepared(load_settings()), lambda runtime, stop: worker(runtime).run(stop)))
