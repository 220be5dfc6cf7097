"""Recording what claims of refunds ended with, and what follows the commit: deliveries, log and metrics."""

from collections.abc import Sequence
from functools import partial

import structlog

from shared import metrics
from shared.broker.client import Queue
from shared.broker.publisher import Publisher
from shared.database.engine import Database
from shared.database.group_commit import GroupCommit
from shared.payments.outcomes import Release, Retry, Unsettled
from shared.refund_lifecycle import RefundHistoryReason
from shared.refunds.outcomes import RefundSettled
from shared.refunds.record import RefundRecord, RefundRecorded, record_refunds
from worker.slots import NotRecorded, Slots, record_within_lease

log = structlog.get_logger(__name__)

# Records in one transaction.
COMMIT_MAX = 200
# See GroupCommit: how long to linger after a commit, as a multiple of the time it took.
LINGER_FACTOR = 6.0


class RefundRecorder:
    """Records what claims of refunds ended with, many in one transaction. Needs `run`.

    With `cancels_orders` the order service is told of refunded payments.
    """

    def __init__(
        self, database: Database, publisher: Publisher, *, queue_max: int, cancels_orders: bool = False
    ) -> None:
        self._publisher = publisher
        self._records: GroupCommit[RefundRecord, RefundRecorded | None] = GroupCommit(
            database,
            partial(record_refunds, cancels_orders=cancels_orders),
            batch_max=COMMIT_MAX,
            queue_max=queue_max,
            linger_factor=LINGER_FACTOR,
            committed=self._after_commit,
        )

    async def run(self) -> None:
        """Write what arrives until `close`, then what is still queued."""
        await self._records.run()

    def close(self) -> None:
        """Take no more records; `run` returns when everything is written."""
        self._records.close()

    async def record(self, item: RefundRecord, *, lease_ends: float, slots: Slots) -> None:
        """Record what a claim ended with, while its lease holds (`lease_ends`, monotonic, in seconds).

        A record that cannot be written by then is logged and given up: the next claim asks the gateway again.
        """
        attempt = item.work.refund.lease_version
        try:
            recorded = await record_within_lease(self._records, item, lease_ends=lease_ends, slots=slots)
        except NotRecorded as error:
            log.warning("refund.record_failed", attempt=attempt, error=str(error))
            return
        if recorded is None:
            log.info("refund.claim_lost", attempt=attempt)
            return
        _log_outcome(item, recorded)

    def _after_commit(self, batch: Sequence[RefundRecorded | None]) -> None:
        """Publish the deliveries of a committed batch and the refunds that were released; end the long polls."""
        done = [one for one in batch if one is not None]
        self._publisher.publish(Queue.DELIVER, [item for one in done for item in one.deliveries.to_publish])
        self._publisher.notify_settled(
            each for one in done if one.refund.status.has_ended for each in (one.refund.id, one.refund.payment_id)
        )
        released = [one.refund.work_item for one in done if one.refund.due_reason == RefundHistoryReason.RELEASED]
        self._publisher.publish(Queue.REFUND, released)


def _log_outcome(item: RefundRecord, recorded: RefundRecorded) -> None:
    refund, attempt = recorded.refund, item.work.refund.lease_version
    match item.outcome:
        case RefundSettled():
            metrics.refunds_settled.labels(refund.status, refund.failure_code or "").inc()
            event = f"refund.{refund.status.value.lower()}"
            log.info(event, attempt=attempt, failure_code=refund.failure_code)
        case Unsettled(answer, ask_after_s):
            log.info("refund.pending", attempt=attempt, gateway=answer.gateway, ask_after_s=round(ask_after_s, 1))
        case Retry(wait_s):
            log.info("refund.postponed", attempt=attempt, wait_s=wait_s, gateway_try=refund.gateway_tries)
        case Release():
            log.info("refund.released", attempt=attempt)
