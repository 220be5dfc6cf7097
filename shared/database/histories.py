"""What the histories of payments and of refunds have in common: the rows, and how clients see them."""

from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.clock import rfc3339

# The member of a claim's metadata with the name of the worker process.
WORKER_NAME = "worker"


class Subject(Protocol):
    """What moves: a payment or a refund, as it is after the move."""

    @property
    def id(self) -> UUID: ...
    @property
    def sequence(self) -> int: ...
    @property
    def status(self) -> str: ...


class Entry(Protocol):
    """A move of a subject; `previous` is None for its first entry."""

    @property
    def previous(self) -> str | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def by(self) -> str: ...
    @property
    def metadata(self) -> dict[str, Any]: ...


def history_row(owner: Column[Any], subject: Subject, entry: Entry, *, now: datetime) -> dict[str, Any]:
    """Return the row of a move. `owner` is the column with the subject's id."""
    return {
        owner.key: subject.id,
        "sequence": subject.sequence,
        "previous_status": entry.previous,
        "new_status": subject.status,
        "reason": entry.reason,
        "metadata": entry.metadata,
        "created_at": now,
        "created_by": entry.by,
    }


def claim_metadata(number: int, worker: str | None) -> dict[str, Any]:
    """Return what the row of a claim says beside the move: its number, and the worker if its name is known."""
    return {"attempt": number} if worker is None else {"attempt": number, WORKER_NAME: worker}


async def read_history(
    connection: AsyncConnection, owner: Column[Any], subject_id: UUID, *, names_workers: bool
) -> list[dict[str, Any]]:
    """Return a history as clients see it, the oldest move first. `owner` is the column with the subject's id.

    The names of workers, which tell of the machines, are for admins: `names_workers`.
    """
    rows = owner.table
    found = await connection.execute(select(rows).where(owner == subject_id).order_by(rows.c.sequence))
    return [
        {
            "sequence": row["sequence"],
            "previous_status": row["previous_status"],
            "new_status": row["new_status"],
            "reason": row["reason"],
            "metadata": _shown(row["metadata"], names_workers=names_workers),
            "created_at": rfc3339(row["created_at"]),
            "created_by": row["created_by"],
        }
        for row in found.mappings()
    ]


def _shown(metadata: dict[str, Any], *, names_workers: bool) -> dict[str, Any]:
    return metadata if names_workers else {name: value for name, value in metadata.items() if name != WORKER_NAME}
