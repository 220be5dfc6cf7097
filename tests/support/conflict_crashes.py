"""One order that was found cancelled, from the claim of its delivery to the record, in a process that kills itself."""

import asyncio
from dataclasses import dataclass
from multiprocessing.connection import Connection

from shared.config.settings import Settings
from shared.database.leases import WorkItem
from shared.runtime import open_runtime
from shared.webhooks.attempts import Conflict
from shared.webhooks.deliveries import claim_deliveries
from tests.support.crashing import LEASE_S, NEVER, Boundaries
from tests.support.deliveries import attempt
from worker.deliveries.conflicts import record_with_conflicts


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The delivery that is to confirm an order, and the number of the boundary at which its process dies."""

    settings: Settings
    item: WorkItem
    dies_at: int = NEVER


def run_confirmation(confirmation: Confirmation, reports: Connection) -> None:
    """Claim the delivery, find its order cancelled and record that; send all boundaries at the end."""
    asyncio.run(_run(confirmation, reports))


async def _run(confirmation: Confirmation, reports: Connection) -> None:
    runtime = open_runtime(confirmation.settings)
    boundaries = Boundaries(confirmation.dies_at)
    # On purpose: every statement of the process passes here, also those of transactions that no test knows.
    boundaries.watch(runtime.database._engine)
    async with runtime.database.transaction() as connection:
        now = await runtime.database.clock.now(connection)
        [claimed] = await claim_deliveries(connection, now, [confirmation.item], lease_s=LEASE_S)
    assert claimed is not None
    async with runtime.database.transaction() as connection:
        now = await runtime.database.clock.now(connection)
        await record_with_conflicts(connection, now, [attempt(claimed, Conflict())], refunds_conflicts=True)
    await runtime.close()
    reports.send(boundaries.passed)
