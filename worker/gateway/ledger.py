"""The gateway's own books: what happened to the money, whoever asked and whatever the payment's record says.

An entry is written once and never changed. The unique (payment, step) decides every race: of authorize, sale and
decline one happens, of capture and void one. The worker never reads or writes these books.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, assert_never
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.any_of import any_of
from shared.db import Database
from shared.group_commit import GroupCommit
from shared.lifecycle import FailureCode
from shared.models import gateway_ledger
from worker.gateway.protocol import Answer, Approved, Declined

BOOKING_REST = 8.0  # few large commits of the books: the wait disappears in the time that a gateway takes


class EntryKind(StrEnum):
    """What an entry says happened."""

    AUTHORIZE = "authorize"  # funds are held, no money moved yet
    SALE = "sale"  # money moved at once
    DECLINE = "decline"
    CAPTURE = "capture"  # held funds moved
    VOID = "void"  # held funds were let go

    @property
    def step(self) -> int:
        """1 or 2; each step of a payment happens once."""
        return 2 if self in {EntryKind.CAPTURE, EntryKind.VOID} else 1


MOVES_MONEY = (EntryKind.SALE, EntryKind.CAPTURE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the books; `answer` is what the asker is told, after an authorization once it is captured."""

    payment_id: UUID
    kind: EntryKind
    amount: int  # minor units
    currency: str
    answer: Answer

    @property
    def key(self) -> str:
        """The entry's name in the books."""
        return f"{self.payment_id}:{self.kind}"


class Ledger:
    """The books, written by many payments at once in shared transactions; somebody must `run` it."""

    def __init__(self, database: Database, *, batch_max: int, queue_max: int) -> None:
        self._database = database
        self._bookings = GroupCommit(database, write, batch_max=batch_max, queue_max=queue_max, rest=BOOKING_REST)

    async def book(self, entry: Entry) -> Entry:
        """Write `entry` unless its step is taken; the payment's latest entry after that, committed.

        Raises DatabaseUnavailable or Overloaded if nothing was written, CommitUnknown if that is not known.
        """
        return await self._bookings.submit(entry)

    async def find(self, payment_id: UUID) -> Entry | None:
        """The payment's latest entry. Raises DatabaseUnavailable."""
        async with self._database.read() as connection:
            return (await _latest(connection, [payment_id])).get(payment_id)

    async def run(self) -> None:
        """Write what arrives until `close`, then what is still queued."""
        await self._bookings.run()

    def close(self) -> None:
        """Take nothing more; `run` returns when everything is written."""
        self._bookings.close()


INSERT = (
    insert(gateway_ledger).on_conflict_do_nothing().returning(gateway_ledger.c.key)
)  # no target: SQLite takes it too


async def write(connection: AsyncConnection, now: datetime, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Book what is not booked yet; for each of `entries` itself if it was written, else its payment's latest entry."""
    tried: dict[tuple[UUID, int], Entry] = {}
    for entry in entries:  # of several for one step only the first is tried: the others find it on record
        tried.setdefault((entry.payment_id, entry.kind.step), entry)
    rows = [_row(tried[step], now) for step in sorted(tried)]  # one order for all writers: they never deadlock
    booked = set((await connection.execute(INSERT, rows)).scalars())
    written = {id(entry) for entry in tried.values() if entry.key in booked}
    taken = {entry.payment_id for entry in entries if id(entry) not in written}
    on_record = await _latest(connection, list(taken)) if taken else {}
    return [entry if id(entry) in written else on_record[entry.payment_id] for entry in entries]


async def _latest(connection: AsyncConnection, payment_ids: Sequence[UUID]) -> dict[UUID, Entry]:
    found = await connection.execute(
        select(gateway_ledger).where(any_of(gateway_ledger.c.payment_id, payment_ids)).order_by(gateway_ledger.c.step)
    )
    return {row.payment_id: _entry(row) for row in found}  # the second step overwrites the first


def _row(entry: Entry, now: datetime) -> dict[str, Any]:
    return {
        "key": entry.key,
        "payment_id": entry.payment_id,
        "step": entry.kind.step,
        "kind": entry.kind,
        "amount": entry.amount,
        "currency": entry.currency,
        "answer": _to_json(entry.answer),
        "created_at": now,
    }


def _entry(row: Row[Any]) -> Entry:
    return Entry(UUID(str(row.payment_id)), EntryKind(row.kind), row.amount, row.currency, _from_json(row.answer))


def _to_json(answer: Answer) -> dict[str, Any]:
    common = {"gateway": answer.gateway, "details": answer.details, "outcome_rule": answer.outcome_rule}
    match answer:
        case Approved():
            return common | {"transaction_id": answer.transaction_id}
        case Declined():
            return common | {"failure_code": answer.failure_code, "failure_reason": answer.failure_reason}
        case _:
            assert_never(answer)


def _from_json(stored: dict[str, Any]) -> Answer:
    if "transaction_id" in stored:
        return Approved(stored["gateway"], stored["transaction_id"], stored["details"], stored["outcome_rule"])
    return Declined(
        stored["gateway"],
        FailureCode(stored["failure_code"]),
        stored["failure_reason"],
        stored["details"],
        stored["outcome_rule"],
    )
