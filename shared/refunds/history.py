"""The history of a refund: one row per move, numbered without gaps, never changed afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.histories import history_row, read_history
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
            [history_row(refund_history.c.refund_id, move.refund, move, now=now) for move in moves],
        )


async def history_of(connection: AsyncConnection, refund_id: UUID, *, names_workers: bool) -> list[dict[str, Any]]:
    """Return the history of a refund as clients see it, the oldest move first. See `read_history`."""
    return await read_history(connection, refund_history.c.refund_id, refund_id, names_workers=names_workers)
