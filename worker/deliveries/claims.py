"""The claims of deliveries that this process holds: made here, or leased when the delivery was inserted.

This module sends nothing.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.engine import Database
from shared.database.group_commit import GroupCommit
from shared.database.leases import WorkItem
from shared.errors import CommitUnknown, DatabaseUnavailable, PaymentsError
from shared.webhooks.deliveries import ClaimedDelivery, claim_deliveries, release

log = structlog.get_logger(__name__)

# Claims in one transaction.
COMMIT_MAX = 200
# See GroupCommit: how long to linger after a commit, as a multiple of the time it took.
LINGER_FACTOR = 1.0
# Seconds after a claim within which its delivery may be sent. The claim has read the endpoint, so a change of the
# endpoint takes so long at most to have an effect. The moment of the claim is also the timestamp that is signed.
REUSABLE_S = 0.5
# Deliveries that are kept whole, with their bodies, for so long: more are sent in no half second.
KEPT_MAX = 2_000


@dataclass(frozen=True, slots=True)
class LeasedDelivery:
    """A delivery that this process has leased, and a moment (monotonic, in seconds) before the lease began."""

    delivery: ClaimedDelivery
    leased_at: float


class DeliveryClaims:
    """Claims deliveries for `lease_s` seconds, many in one transaction. Needs `run`."""

    def __init__(self, database: Database, *, lease_s: float, queue_max: int) -> None:
        self._database = database
        self._lease_s = lease_s
        self._claims: GroupCommit[WorkItem, ClaimedDelivery | None] = GroupCommit(
            database,
            self._claim_batch,
            batch_max=COMMIT_MAX,
            queue_max=queue_max,
            linger_factor=LINGER_FACTOR,
        )
        # Deliveries that were inserted already leased, and wait for a slot; the newest of them whole.
        self._leased_items: dict[UUID, WorkItem] = {}
        self._leased: OrderedDict[UUID, LeasedDelivery] = OrderedDict()
        # Claims under which nothing was sent.
        self._unsent: list[WorkItem] = []

    async def run(self) -> None:
        """Make claims until `close`, then those that are still queued."""
        await self._claims.run()

    def close(self) -> None:
        """Take no more claims; `run` returns when the queued ones are made."""
        self._claims.close()

    def keep(self, delivery: ClaimedDelivery, leased_at: float) -> None:
        """Keep a delivery that was inserted already leased, until `claim` returns it.

        `leased_at` is a moment (monotonic, in seconds) before the lease began.
        """
        self._leased_items[delivery.id] = delivery.work_item
        self._leased[delivery.id] = LeasedDelivery(delivery, leased_at)
        if len(self._leased) > KEPT_MAX:
            self._leased.popitem(last=False)

    def drop_lease(self, item: WorkItem) -> bool:
        """Forget a delivery that is not to be sent now. Return whether it was inserted already leased."""
        self._leased.pop(item.id, None)
        return self._leased_items.pop(item.id, None) is not None

    async def claim(self, item: WorkItem) -> LeasedDelivery | None:
        """Return the delivery of an item, leased by this process; None if there is nothing to send.

        A claim that fails is not raised: the delivery stays due.
        """
        return self._reusable_claim(item) or await self._claim(item)

    def give_up(self, items: Iterable[WorkItem]) -> None:
        """Remember claims under which nothing was sent; `release_unsent` releases them."""
        self._unsent += items

    async def release_unsent(self) -> None:
        """Release every claim under which nothing was sent: another worker may claim these deliveries at once."""
        self.give_up(self._leased_items.values())
        self._leased_items.clear()
        self._leased.clear()
        if not self._unsent:
            return
        try:
            async with self._database.transaction() as connection:
                now = await self._database.clock.now(connection)
                released = await release(connection, now, self._unsent)
        except (DatabaseUnavailable, CommitUnknown) as error:
            # Safe: the leases will end, and the relay publishes the deliveries again.
            log.warning("delivery.unreleased", count=len(self._unsent), error=repr(error))
        else:
            log.info("delivery.released", count=released)

    def _reusable_claim(self, item: WorkItem) -> LeasedDelivery | None:
        """Return the lease with which the delivery was inserted; None if there is none, or it is too old to send."""
        self._leased_items.pop(item.id, None)
        leased = self._leased.pop(item.id, None)
        if leased is None or leased.delivery.work_item != item:
            return None
        return leased if monotonic() - leased.leased_at < REUSABLE_S else None

    async def _claim(self, item: WorkItem) -> LeasedDelivery | None:
        # A moment before the claim, so that no lease is believed to end later than its row says.
        leased_at = monotonic()
        try:
            delivery = await self._claims.submit(item)
        except PaymentsError as error:
            # Safe: the delivery stays due, and the relay publishes it again.
            log.debug("delivery.item_dropped", delivery_id=str(item.id), error=repr(error))
            return None
        return LeasedDelivery(delivery, leased_at) if delivery else None

    async def _claim_batch(
        self, connection: AsyncConnection, now: datetime, items: Sequence[WorkItem]
    ) -> list[ClaimedDelivery | None]:
        real_now = self._database.clock.real_now()
        return await claim_deliveries(connection, now, items, lease_s=self._lease_s, real_now=real_now)
