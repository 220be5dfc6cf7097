"""The live figures of the whole installation: counted at most once a second and shared by all requests."""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import case, func, select

from api.single_flight import CachedCall
from shared.broker.client import Broker
from shared.broker.heartbeats import WorkerStatus, alive_workers
from shared.database.clock import rfc3339
from shared.database.columns import UtcDateTime
from shared.database.engine import Database
from shared.database.refund_tables import refunds
from shared.database.tables import deliveries, payments
from shared.lifecycle import PaymentStatus

# Seconds for which figures are reused.
FRESH_FOR_S = 1.0
# What its request wants to stay PENDING for a while waits for nobody.
_WAITS_SINCE = case((payments.c.steering["pending_ms"].as_integer().is_(None), payments.c.created_at))
# Seconds over which the rate of accepted payments is averaged.
RATE_OVER_S = 5


# Members of a heartbeat that are in no answer: the dashboard makes figures of them.
_INTERNAL = ("outcomes", "settle_counts")


class Snapshot(NamedTuple):
    """Figures as clients see them, and the heartbeats of the workers; None if these are not known."""

    figures: dict[str, Any]
    workers: list[WorkerStatus] | None


class Stats:
    """Live figures from the database and the heartbeats of the workers, counted at most once a second."""

    def __init__(self, database: Database, broker: Broker) -> None:
        self._database = database
        self._broker = broker
        self._figures = CachedCall(self._count, ttl_s=FRESH_FOR_S)

    async def close(self) -> None:
        """Cancel a count that still runs, and return when it has ended."""
        await self._figures.close()

    async def current(self) -> dict[str, Any]:
        """Return the figures, at most a second old. Raises DatabaseUnavailable."""
        return (await self._figures.get()).figures

    async def snapshot(self) -> Snapshot:
        """Return the figures with the heartbeats, at most a second old. Raises DatabaseUnavailable."""
        return await self._figures.get()

    async def _count(self) -> Snapshot:
        async with self._database.read() as connection:
            now = await self._database.clock.now(connection)
            real_now = self._database.clock.real_now()
            speed = self._database.clock.time.speed_at(real_now)
            # Open rows are those with a `due_at`: the partial index holds exactly these rows.
            open_payments = await connection.execute(
                select(payments.c.status, func.count(), func.min(_WAITS_SINCE, type_=UtcDateTime))
                .where(payments.c.due_at.is_not(None))
                .group_by(payments.c.status)
            )
            by_status = {row[0]: (row[1], row[2]) for row in open_payments}
            backlog = await connection.execute(
                select(func.count()).select_from(deliveries).where(deliveries.c.due_at.is_not(None))
            )
            open_refunds = await connection.execute(
                select(func.count()).select_from(refunds).where(refunds.c.due_at.is_not(None))
            )
            accepted = await connection.execute(
                select(func.count())
                .select_from(payments)
                .where(payments.c.id >= _first_id_of(real_now - timedelta(seconds=RATE_OVER_S)))
            )
            webhook_backlog, refund_backlog = backlog.scalar_one(), open_refunds.scalar_one()
            accepted_lately = accepted.scalar_one()
        workers = await alive_workers(self._broker)
        queue_depth, oldest = by_status.get(PaymentStatus.PENDING, (0, None))
        figures = {
            "computed_at": rfc3339(now),
            "queue_depth": queue_depth,
            "in_flight": by_status.get(PaymentStatus.PROCESSING, (0, None))[0],
            "oldest_pending_s": round((now - oldest).total_seconds() / speed, 3) if oldest else 0.0,
            "refund_backlog": refund_backlog,
            "webhook_backlog": webhook_backlog,
            "accepted_per_s": round(accepted_lately / RATE_OVER_S, 1),
            "settled_per_s": round(sum(worker.settled_per_s for worker in workers), 1) if workers is not None else None,
            "workers": [_shown(worker) for worker in workers] if workers is not None else None,
        }
        return Snapshot(figures, workers)


def _shown(worker: WorkerStatus) -> dict[str, Any]:
    return {name: value for name, value in asdict(worker).items() if name not in _INTERNAL}


def _first_id_of(moment: datetime) -> UUID:
    """Return the smallest UUIDv7 of a millisecond: these ids sort by their time of creation (RFC 9562, 5.7)."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
