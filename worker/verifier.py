"""Verifies the whole installation when an admin asks for it: one worker does it, beside its payments.

It must repair nothing, and no payment may wait for it: it has a connection of its own to the database.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Never

import structlog

from shared.broker.client import Broker
from shared.broker.heartbeats import HEARTBEAT_INTERVAL_S
from shared.broker.verify_runs import ALIVE_S, VerifyRun, VerifyStatus, say_verify, take_verify
from shared.config.settings import Settings
from shared.database.engine import open_database
from shared.database.uninterrupted import uninterrupted
from shared.errors import BrokerUnavailable, CommitUnknown, DatabaseUnavailable
from shared.verify.scan import Scan
from shared.verify.verifier import STATEMENT_S, Verification, verify_installation

log = structlog.get_logger(__name__)

# Seconds that a run may take: a million payments take a quarter of a minute.
RUN_MAX_S = 3600.0

UNAVAILABLE = "The database did not answer. Ask again when it does."
TOO_LONG = "It took more than an hour. Run `payments verify` instead."
DEFECT = "An internal error occurred. The log of the worker has its traceback."

type Verify = Callable[[Scan, Settings], Awaitable[Verification]]


class Verifier:
    """Takes the verification that waits, if there is one. Each worker process has one; `worker` is its name."""

    def __init__(
        self, settings: Settings, broker: Broker, *, worker: str, verify: Verify = verify_installation
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._worker = worker
        self._verify = verify

    async def run(self) -> Never:
        """Look for a verification every second until cancelled, and do it."""
        while True:
            await self.run_once()
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    async def run_once(self) -> bool:
        """Do the verification that waits. Return False if none does."""
        try:
            run = await take_verify(self._broker, self._worker)
        except BrokerUnavailable as error:
            # Safe: nobody can ask without Redis either, and a run that nobody takes is shown as such.
            log.warning("verify.not_taken", error=str(error))
            return False
        if run is None:
            return False
        log.info("verify.started", run_id=str(run.id))
        await _Run(self._broker, run, self._verify).through(self._settings)
        return True


class _Run:
    """One run from its start to its last word."""

    def __init__(self, broker: Broker, run: VerifyRun, verify: Verify) -> None:
        self._broker = broker
        self._run = run
        self._verify = verify
        self._limit = asyncio.timeout(RUN_MAX_S)
        self._is_replaced = False

    async def through(self, settings: Settings) -> None:
        saying = asyncio.create_task(self._say_every_second())
        try:
            async with self._limit:
                is_sound = await self._verify_all(settings)
        except (DatabaseUnavailable, CommitUnknown) as error:
            self._end(UNAVAILABLE)
            log.warning("verify.database_failed", run_id=str(self._run.id), error=str(error))
        except TimeoutError:
            # If another was asked for, nobody asks how this one ended.
            self._end(TOO_LONG)
            log.warning("verify.ended_early", run_id=str(self._run.id))
        except Exception:
            # A defect of a check must not stop payments.
            self._end(DEFECT)
            log.exception("verify.failed", run_id=str(self._run.id))
        else:
            self._end()
            log.info("verify.done", run_id=str(self._run.id), is_sound=is_sound)
        finally:
            saying.cancel()
            await asyncio.gather(saying, return_exceptions=True)
        await self._say_last()

    async def _verify_all(self, settings: Settings) -> bool:
        """Verify, keep the report and return whether it is sound. Raises DatabaseUnavailable or CommitUnknown."""
        database = open_database(settings, statement_s=STATEMENT_S)
        try:
            scan = Scan(database, on_progress=self._note)
            self._run = replace(self._run, total=await scan.size())
            done = await self._verify(scan, settings)
            await done.keep(database)
            return done.found.is_sound
        finally:
            await uninterrupted(database.dispose())

    def _note(self, count: int) -> None:
        # Payments that arrive meanwhile are checked, too.
        checked = self._run.checked + count
        self._run = replace(self._run, checked=checked, total=max(checked, self._run.total or 0))

    def _end(self, failure: str | None = None) -> None:
        status = VerifyStatus.FAILED if failure else VerifyStatus.DONE
        self._run = replace(self._run, status=status, failure=failure)

    async def _say_every_second(self) -> None:
        while True:
            await self._say()
            if self._is_replaced:
                break
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)
        # There is one at a time.
        with contextlib.suppress(RuntimeError):
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def _say_last(self) -> None:
        """Say how the run ended, as long as anybody may wait for it."""
        for _ in range(ALIVE_S):
            if self._is_replaced or await self._say():
                return
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    async def _say(self) -> bool:
        """Say how far the run is, or note that another was asked for. Return False if Redis did not answer."""
        try:
            # Redis may not have heard of this run for so long that another was asked for.
            self._is_replaced = not await say_verify(self._broker, self._run)
        except BrokerUnavailable as error:
            # Safe: it is said again in a second.
            log.warning("verify.not_said", run_id=str(self._run.id), error=str(error))
            return False
        return True
