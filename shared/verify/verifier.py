"""A verification of the whole installation, with its report. The command and the workers verify with it.

It must write nothing but its report.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.event_types import EventType
from shared.verify.report import document
from shared.verify.reports import keep_report
from shared.verify.scan import DELIVERIES, LEDGER, OPEN, RECORDS, Found, Scan

# Seconds. The relay looks every second, and publishes a row again if no worker has claimed it within 30 s.
DUE_MAX_S = 60.0
# Seconds that a claim lasts by default.
LEASE_S = 30.0
# Seconds that a statement of a verification may take: one counts all payments.
STATEMENT_S = 300.0


@dataclass(frozen=True, slots=True)
class Verification:
    """A verification that has ended: what was found, and the report of it as a JSON object."""

    found: Found
    report: dict[str, Any]
    started_at: datetime
    finished_at: datetime

    async def keep(self, database: Database) -> None:
        """Store the report, so that every API process answers with it."""
        async with database.transaction() as connection:
            await keep_report(connection, self.report, started_at=self.started_at, finished_at=self.finished_at)


async def verify_installation(
    scan: Scan, settings: Settings, *, due_max_s: float = DUE_MAX_S, orders_since: datetime | None = None
) -> Verification:
    """Check every invariant that holds in an installation with these settings. See `verify`."""
    started_at = await _now(scan.database)
    found = await verify(
        scan,
        due_max_s=due_max_s,
        confirms_orders=settings.order_service_url is not None,
        cancels_orders=settings.cancels_orders,
        orders_since=orders_since,
        lease_s=settings.lease_s,
        webhook_lease_s=settings.webhook_lease_s,
    )
    finished_at = await _now(scan.database)
    report = document(found, started_at=started_at, finished_at=finished_at)
    return Verification(found, report, started_at, finished_at)


async def verify(
    scan: Scan,
    *,
    due_max_s: float = DUE_MAX_S,
    confirms_orders: bool = False,
    cancels_orders: bool = False,
    orders_since: datetime | None = None,
    lease_s: float = LEASE_S,
    webhook_lease_s: float = LEASE_S,
) -> Found:
    """Check every invariant and return what was found.

    A payment or delivery may be due, or wait for its first claim, for `due_max_s` seconds. With `confirms_orders`, each
    payment that was completed after `orders_since` must have an order update; None means a minute after the first order
    update. With `cancels_orders` the same holds of refunded payments, from a minute after the first of their updates. A
    claim of a payment lasts `lease_s` seconds, and one of a delivery `webhook_lease_s`.
    """
    of_orders = await scan.order_update_queries(orders_since, EventType.COMPLETED) if confirms_orders else []
    if cancels_orders:
        of_orders += await scan.order_update_queries(None, EventType.REFUNDED)
    await scan.of_payments([*RECORDS, *LEDGER, *DELIVERIES, *OPEN, *of_orders])
    await scan.of_keys()
    await scan.of_due(due_max_s)
    await scan.of_leases(lease_s, webhook_lease_s)
    await scan.of_unclaimed(due_max_s)
    return scan.found


async def _now(database: Database) -> datetime:
    async with database.read() as connection:
        return await database.clock.now(connection)
