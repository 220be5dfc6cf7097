"""What is done to the processes: killed, paused and replaced, and Valkey emptied. Everything is real.

A fault holds the lock of the part that it breaks and leaves it as an orchestrator would: running.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import redis.asyncio

from tests.chaos.installation import Installation
from tests.chaos.plan import Planned
from tests.support.processes import PaymentsProcess

STOPS_WITHIN_S = 40.0
# Longer than a lease: what the paused worker held is taken over.
LONG_PAUSE_S = 16.0
LONG_PAUSE_EVERY = 4

type Fault = Callable[[Installation, Planned], Awaitable[None]]


async def kill_api(installation: Installation, planned: Planned) -> None:
    """SIGKILL, started again after a while."""
    await _kill(installation, _of(installation.apis, planned), planned.lasts_s)


async def kill_worker(installation: Installation, planned: Planned) -> None:
    """SIGKILL, started again after a while."""
    await _kill(installation, _of(installation.workers, planned), planned.lasts_s)


async def pause_api(installation: Installation, planned: Planned) -> None:
    """SIGSTOP, SIGCONT after a while."""
    await _pause(installation, _of(installation.apis, planned), planned.lasts_s)


async def pause_worker(installation: Installation, planned: Planned) -> None:
    """SIGSTOP, SIGCONT after a while; every fourth sleeps through its lease."""
    is_long = planned.victim // len(installation.workers) % LONG_PAUSE_EVERY == 0
    await _pause(installation, _of(installation.workers, planned), LONG_PAUSE_S if is_long else planned.lasts_s)


async def replace_worker(installation: Installation, planned: Planned) -> None:
    """SIGTERM, as at a new version: it ends by itself with 0, and another begins."""
    process = _of(installation.workers, planned)
    async with installation.lock(process.folder.name):
        # One that was started a moment ago may have no handler for the signal yet; then it has claimed nothing.
        fine = {0} if process.lines("worker.started") else {0, -signal.SIGTERM}
        process.terminate()
        try:
            if (code := await process.ended(STOPS_WITHIN_S)) not in fine:
                installation.findings.append(
                    f"{process.folder.name} ended with {code} at SIGTERM: {process.errors[-1500:]}"
                )
        except AssertionError:
            installation.findings.append(f"{process.folder.name} does not end at SIGTERM: {process.output[-1500:]}")
            process.kill()
        process.start()


async def kill_valkey(installation: Installation, planned: Planned) -> None:
    """SIGKILL; an empty one takes its place."""
    async with installation.lock("valkey"):
        installation.valkey.kill()
        await asyncio.sleep(planned.lasts_s)
        installation.valkey.start()


async def pause_valkey(installation: Installation, planned: Planned) -> None:
    """SIGSTOP: connections stay open and no answer comes."""
    async with installation.lock("valkey"):
        installation.valkey.pause()
        try:
            await asyncio.sleep(planned.lasts_s)
        finally:
            installation.valkey.resume()


async def flush_valkey(installation: Installation, _planned: Planned) -> None:
    """FLUSHALL: every message that waits is gone."""
    async with installation.lock("valkey"), redis.asyncio.Redis.from_url(installation.valkey.url) as client:
        await client.flushall()


async def _kill(installation: Installation, process: PaymentsProcess, away_s: float) -> None:
    async with installation.lock(process.folder.name):
        process.kill()
        await asyncio.sleep(away_s)
        process.start()


async def _pause(installation: Installation, process: PaymentsProcess, for_s: float) -> None:
    async with installation.lock(process.folder.name):
        # It has ended by itself: the watch says so.
        if not process.is_running:
            return
        process.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(for_s)
        finally:
            process.resume()


def _of(group: list[PaymentsProcess], planned: Planned) -> PaymentsProcess:
    return group[planned.victim % len(group)]
