"""What is done to the processes: killed, paused and replaced, and Valkey emptied. Everything is real.

A fault holds the lock of the part that it breaks and leaves it as an orchestrator would: running.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import redis.asyncio

from tests.chaos.plan import Planned
from tests.chaos.stage import Stage
from tests.processes import PaymentsProcess

STOPS_WITHIN_S = 40.0
LONG_PAUSE_S = 16.0  # longer than a lease: what the sleeper held is taken over
LONG_PAUSE_EVERY = 4

type Fault = Callable[[Stage, Planned], Awaitable[None]]


async def kill_api(stage: Stage, planned: Planned) -> None:
    """SIGKILL, started again after a while."""
    await _kill(stage, _of(stage.apis, planned), planned.lasts_s)


async def kill_worker(stage: Stage, planned: Planned) -> None:
    """SIGKILL, started again after a while."""
    await _kill(stage, _of(stage.workers, planned), planned.lasts_s)


async def pause_api(stage: Stage, planned: Planned) -> None:
    """SIGSTOP, SIGCONT after a while."""
    await _pause(stage, _of(stage.apis, planned), planned.lasts_s)


async def pause_worker(stage: Stage, planned: Planned) -> None:
    """SIGSTOP, SIGCONT after a while; every fourth sleeps through its lease."""
    is_long = planned.victim // len(stage.workers) % LONG_PAUSE_EVERY == 0
    await _pause(stage, _of(stage.workers, planned), LONG_PAUSE_S if is_long else planned.lasts_s)


async def replace_worker(stage: Stage, planned: Planned) -> None:
    """SIGTERM, as at a new version: it ends by itself with 0, and another begins."""
    process = _of(stage.workers, planned)
    async with stage.lock(process.folder.name):
        # One that was started a moment ago may have no handler for the signal yet; then it has claimed nothing.
        fine = {0} if process.lines("worker.started") else {0, -signal.SIGTERM}
        process.terminate()
        try:
            if (code := await process.ended(STOPS_WITHIN_S)) not in fine:
                stage.findings.append(f"{process.folder.name} ended with {code} at SIGTERM: {process.errors[-1500:]}")
        except AssertionError:
            stage.findings.append(f"{process.folder.name} does not end at SIGTERM: {process.output[-1500:]}")
            process.kill()
        process.start()


async def kill_valkey(stage: Stage, planned: Planned) -> None:
    """SIGKILL; an empty one takes its place."""
    async with stage.lock("valkey"):
        stage.valkey.kill()
        await asyncio.sleep(planned.lasts_s)
        stage.valkey.start()


async def pause_valkey(stage: Stage, planned: Planned) -> None:
    """SIGSTOP: connections stay open and nobody answers."""
    async with stage.lock("valkey"):
        stage.valkey.pause()
        try:
            await asyncio.sleep(planned.lasts_s)
        finally:
            stage.valkey.resume()


async def flush_valkey(stage: Stage, _planned: Planned) -> None:
    """FLUSHALL: every message that waits is gone."""
    async with stage.lock("valkey"), redis.asyncio.Redis.from_url(stage.valkey.url) as client:
        await client.flushall()


async def _kill(stage: Stage, process: PaymentsProcess, away_s: float) -> None:
    async with stage.lock(process.folder.name):
        process.kill()
        await asyncio.sleep(away_s)
        process.start()


async def _pause(stage: Stage, process: PaymentsProcess, for_s: float) -> None:
    async with stage.lock(process.folder.name):
        if not process.is_running:  # it has ended by itself: the watch says so
            return
        process.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(for_s)
        finally:
            process.resume()


def _of(group: list[PaymentsProcess], planned: Planned) -> PaymentsProcess:
    return group[planned.victim % len(group)]
