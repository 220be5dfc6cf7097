"""Recording attempts to send, with their log lines and metrics."""

import logging
from dataclasses import dataclass
from functools import partial
from typing import assert_never

import structlog

from shared import metrics
from shared.database.engine import Database
from shared.database.group_commit import GroupCommit
from shared.webhooks.attempts import (
    Cancelled,
    Conflict,
    Delivered,
    DeliveryAttempt,
    Exhausted,
    Gone,
    RecordedOutcome,
    TryAgain,
)
from shared.webhooks.deliveries import ClaimedDelivery
from worker.deliveries.conflicts import record_with_conflicts
from worker.slots import NotRecorded, Slots, record_within_lease

log = structlog.get_logger(__name__)

# Attempts in one transaction.
COMMIT_MAX = 200
# See GroupCommit: how long to linger after a commit, as a multiple of the time it took.
LINGER_FACTOR = 8.0


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """An attempt that is to be recorded while its lease holds (`lease_ends`, monotonic, in seconds)."""

    attempt: DeliveryAttempt
    lease_ends: float


class AttemptRecorder:
    """Records attempts, many in one transaction. Needs `run`.

    With `refunds_conflicts` a payment whose order was cancelled meanwhile is refunded.
    """

    def __init__(self, database: Database, *, queue_max: int, refunds_conflicts: bool = False) -> None:
        self._records: GroupCommit[DeliveryAttempt, RecordedOutcome | None] = GroupCommit(
            database,
            partial(record_with_conflicts, refunds_conflicts=refunds_conflicts),
            batch_max=COMMIT_MAX,
            queue_max=queue_max,
            linger_factor=LINGER_FACTOR,
        )

    async def run(self) -> None:
        """Write what arrives until `close`, then what is still queued."""
        await self._records.run()

    def close(self) -> None:
        """Take no more attempts; `run` returns when everything is written."""
        self._records.close()

    async def record(self, result: AttemptResult, slots: Slots) -> None:
        """Record an attempt, and repeat that while its lease holds.

        If that fails it is logged and given up: the delivery is sent once more.
        """
        attempt = result.attempt
        try:
            outcome = await record_within_lease(self._records, attempt, lease_ends=result.lease_ends, slots=slots)
        except NotRecorded as error:
            # The lease will end, and another claim sends the delivery once more.
            log.warning("delivery.unrecorded", error=str(error), **_log_context(attempt.delivery))
            return
        if outcome is not None:
            _log_attempt(attempt, outcome)
        else:
            # The delivery was claimed again meanwhile, or the answer to our own COMMIT was lost.
            log.info("delivery.superseded", status_code=attempt.status_code, **_log_context(attempt.delivery))


def _log_context(delivery: ClaimedDelivery) -> dict[str, str | int | None]:
    """Return what every log line about a delivery names; never its body, secret or URL."""
    return {
        "delivery_id": str(delivery.id),
        "payment_id": str(delivery.payment_id),
        "correlation_id": delivery.correlation_id,
        "attempt": delivery.lease_version,
    }


def _log_attempt(attempt: DeliveryAttempt, outcome: RecordedOutcome) -> None:
    """Log and count an attempt that is recorded."""
    event, level = _log_event(outcome)
    details: dict[str, str | float | None] = {"status_code": attempt.status_code, "duration_ms": attempt.duration_ms}
    if attempt.error is not None:
        details["error"] = attempt.error
    if attempt.repeats is not None:
        details["repeats"] = attempt.repeats.error
    if isinstance(outcome, TryAgain):
        details["wait_s"] = round(outcome.wait_s, 3)
    log.log(level, event, **_log_context(attempt.delivery), **details)
    metrics.deliveries.labels(attempt.delivery.kind, event.removeprefix("delivery.")).inc()
    metrics.delivery_seconds.observe(attempt.duration_ms / 1000)


def _log_event(outcome: RecordedOutcome) -> tuple[str, int]:
    """Return the event and the level of the log line."""
    match outcome:
        case Delivered():
            return "delivery.delivered", logging.INFO
        case TryAgain():
            return "delivery.failed", logging.INFO
        case Cancelled():
            return "delivery.cancelled", logging.INFO
        case Exhausted():
            return "delivery.exhausted", logging.WARNING
        case Gone():
            return "delivery.gone", logging.WARNING
        case Conflict():
            return "delivery.conflict", logging.ERROR
        case _:
            assert_never(outcome)
