"""The lane of payments: how they are claimed, processed and recorded."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.clock import Clock
from shared.database.leases import Claimed, Ended, WorkItem
from shared.payments.claim import claim
from shared.payments.outcomes import ClaimOutcome
from shared.payments.payment import Payment
from shared.payments.record import Record
from worker.payments.charge import Charger
from worker.payments.recorder import Recorder
from worker.slots import Slots

log = structlog.get_logger(__name__)


class PaymentHandler:
    """A `worker.lane.Handler` of payments; see there for the methods."""

    name = "payment"

    def __init__(
        self, charger: Charger, recorder: Recorder, clock: Clock, *, lease_s: float, worker: str | None = None
    ) -> None:
        self._charger = charger
        self._clock = clock
        self._recorder = recorder
        self._lease_s = lease_s
        self._worker = worker

    async def claim(
        self, connection: AsyncConnection, now: datetime, items: Sequence[WorkItem], *, steered_max: int
    ) -> list[Claimed[Payment] | Ended[Payment] | None]:
        """See `Handler.claim`."""
        real_now = self._clock.real_now()
        return await claim(
            connection,
            now,
            items,
            lease_s=self._lease_s,
            steered_max=steered_max,
            real_now=real_now,
            worker=self._worker,
        )

    def is_steered(self, row: Payment) -> bool:
        """See `Handler.is_steered`."""
        return row.is_steered_by_user

    def ended(self, ended: Ended[Payment]) -> None:
        """See `Handler.ended`."""
        payment = ended.row
        with self.log_context(payment):
            log.info("payment.failed", failure_code=payment.failure_code, outcome_rule=payment.outcome_rule)
        self._recorder.ended(ended)

    def log_context(self, row: Payment) -> AbstractContextManager[Any]:
        """See `Handler.log_context`."""
        return structlog.contextvars.bound_contextvars(payment_id=str(row.id), correlation_id=row.correlation_id)

    async def outcome(self, row: Payment, lease_ends: float, slots: Slots) -> ClaimOutcome | None:
        """See `Handler.outcome`."""
        log.info("payment.claimed", attempt=row.lease_version)
        return await self._charger.outcome(row, lease_ends, slots)

    async def record(self, row: Payment, outcome: ClaimOutcome, lease_ends: float, slots: Slots) -> None:
        """See `Handler.record`."""
        await self._recorder.record(Record(row, outcome), lease_ends=lease_ends, slots=slots)

    async def run(self) -> None:
        """See `Handler.run`."""
        await self._recorder.run()

    def close(self) -> None:
        """See `Handler.close`."""
        self._recorder.close()
