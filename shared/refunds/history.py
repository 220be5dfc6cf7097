"""The history of a refund: one row per move, numbered without gaps, never changed afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.clock import rfc3339
from shared.database.refund_tables import refund_history
from shared.refund_lifecycle import RefundHistoryReason, RefundStatus
from shared.refunds.refund import Refund


@dataclass(frozen=True, slots=True)
class RefundMove:
    """A move of a refund. `refund` is the refund after the move; `previous` is None for its first entry."""

    refund: Refund
    previous: RefundStatus | None
    reason: RefundHistoryReason
    by: str
    metadata: dict[str, Any] = field(default_factory=dict)


async def append(connection: AsyncConnection, moves: Sequence[RefundMove], *, now: datetime) -> None:
    """Insert a row for each move. Its number is the sequence of the refund after the move."""
    if moves:
        await connection.execute(
            insert(refund_history),
            [
                {
                    "refund_id": move.refund.id,
                    "sequence": move.refund.sequence,
                    "previous_status": move.previous,
                    "new_status": move.refund.status,
                    "reason": move.reason,
                    "metadata": move.metadata,
                    "created_at": now,
                    "created_by": move.by,
                }
                for move in moves
            ],
        )


async def history_of(connection: AsyncConnection, refund_id: UUID) -> list[dict[str, Any]]:
    """Return the history of a refund as clients see it, the oldest move first."""
    found = await connection.execute(
        select(refund_history).where(refund_history.c.refund_id == refund_id).order_by(refund_history.c.sequence)
    )
    return [
        {
            "sequence": row["sequence"],
            "previous_status": row["previous_status"],
            "new_status": row["new_status"],
            "reason": row["reason"],
            "metadata": row["metadata"],
            "created_at": rfc3339(row["created_at"]),
            "created_by": row["created_by"],
        }
        for row in found.mappings()
    ]
