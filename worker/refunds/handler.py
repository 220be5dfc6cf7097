"""The lane of refunds: how they are claimed, processed and recorded."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.clock import Clock
from shared.database.leases import Claimed, Ended, WorkItem
from shared.refunds.claim import claim_refunds
from shared.refunds.outcomes import RefundOutcome, RefundWork
from shared.refunds.record import RefundRecord
from worker.refunds.recorder import RefundRecorder
from worker.refunds.repay import Repayer
from worker.slots import Slots

log = structlog.get_logger(__name__)


class RefundHandler:
    """A `worker.lane.Handler` of refunds; see there for the methods."""

    name = "refund"

    def __init__(
        self, repayer: Repayer, recorder: RefundRecorder, clock: Clock, *, lease_s: float, worker: str | None = None
    ) -> None:
        self._repayer = repayer
        self._clock = clock
        self._recorder = recorder
        self._lease_s = lease_s
        self._worker = worker

    async def claim(
        self, connection: AsyncConnection, now: datetime, items: Sequence[WorkItem], *, steered_max: int
    ) -> list[Claimed[RefundWork] | None]:
        """See `Handler.claim`."""
        real_now = self._clock.real_now()
        return await claim_refunds(
            connection,
            now,
            items,
            lease_s=self._lease_s,
            steered_max=steered_max,
            real_now=real_now,
            worker=self._worker,
        )

    def is_steered(self, row: RefundWork) -> bool:
        """See `Handler.is_steered`."""
        return row.refund.is_steered_by_user

    def ended(self, ended: Ended[RefundWork]) -> None:
        """See `Handler.ended`: no claim ends a refund."""
        raise AssertionError(f"refund {ended.row.refund.id} ended at its claim")

    def log_context(self, row: RefundWork) -> AbstractContextManager[Any]:
        """See `Handler.log_context`."""
        return structlog.contextvars.bound_contextvars(
            refund_id=str(row.refund.id), payment_id=str(row.payment.id), correlation_id=row.refund.correlation_id
        )

    async def outcome(self, row: RefundWork, lease_ends: float, slots: Slots) -> RefundOutcome | None:
        """See `Handler.outcome`."""
        log.info("refund.claimed", attempt=row.refund.lease_version)
        return await self._repayer.outcome(row, lease_ends, slots)

    async def record(self, row: RefundWork, outcome: RefundOutcome, lease_ends: float, slots: Slots) -> None:
        """See `Handler.record`."""
        await self._recorder.record(RefundRecord(row, outcome), lease_ends=lease_ends, slots=slots)

    async def run(self) -> None:
        """See `Handler.run`."""
        await self._recorder.run()

    def close(self) -> None:
        """See `Handler.close`."""
        self._recorder.close()
