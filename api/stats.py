"""The live figures: counted at most once a second, whoever asks, and shared by all who do."""

import asyncio
from dataclasses import asdict
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from shared.clock import rfc3339
from shared.db import Database
from shared.lifecycle import PaymentStatus
from shared.models import deliveries, payments
from shared.presence import alive
from shared.queue import Carrier

FRESH_FOR_S = 1.0
RATE_OVER_S = 5


class Stats:
    """Asks the database and Redis, not more than once a second."""

    def __init__(self, database: Database, carrier: Carrier) -> None:
        self._database = database
        self._carrier = carrier
        self._lock = asyncio.Lock()
        self._counted_at = -FRESH_FOR_S
        self._figures: dict[str, Any] = {}

    async def current(self) -> dict[str, Any]:
        """The figures, at most a second old. Raises DatabaseUnavailable."""
        async with self._lock:
            if monotonic() - self._counted_at >= FRESH_FOR_S:
                self._figures = await self._count()
                self._counted_at = monotonic()
        return self._figures

    async def _count(self) -> dict[str, Any]:
        async with self._database.read() as connection:
            now = await self._database.clock.now(connection)
            # Open rows are those with a due time: the partial index holds them and nothing else.
            open_payments = await connection.execute(
                select(payments.c.status, func.count(), func.min(payments.c.created_at))
                .where(payments.c.due_at.is_not(None))
                .group_by(payments.c.status)
            )
            by_status = {row[0]: (row[1], row[2]) for row in open_payments}
            backlog = await connection.execute(
                select(func.count()).select_from(deliveries).where(deliveries.c.due_at.is_not(None))
            )
            accepted = await connection.execute(
                select(func.count())
                .select_from(payments)
                .where(payments.c.id >= _first_id_of(now - timedelta(seconds=RATE_OVER_S)))
            )
            webhook_backlog, accepted_lately = backlog.scalar_one(), accepted.scalar_one()
        workers = await alive(self._carrier)
        queue_depth, oldest = by_status.get(PaymentStatus.PENDING, (0, None))
        return {
            "computed_at": rfc3339(now),
            "queue_depth": queue_depth,
            "in_flight": by_status.get(PaymentStatus.PROCESSING, (0, None))[0],
            "oldest_pending_s": round((now - oldest).total_seconds(), 3) if oldest else 0.0,
            "webhook_backlog": webhook_backlog,
            "accepted_per_s": round(accepted_lately / RATE_OVER_S, 1),
            "settled_per_s": round(sum(worker.settled_per_s for worker in workers), 1) if workers is not None else None,
            "workers": [asdict(worker) for worker in workers] if workers is not None else None,
        }


def _first_id_of(moment: datetime) -> UUID:
    """The smallest UUIDv7 of a millisecond: ids are in the order of their creation (RFC 9562, 5.7)."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
