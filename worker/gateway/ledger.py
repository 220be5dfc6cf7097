"""The simulated gateway's own ledger: what happened to the money, whatever the row of the payment says.

An entry is inserted once and never changed. The unique key (payment, step) decides every race: one of authorize, sale
and decline happens, and one of capture and void. Only the gateway reads and writes the ledger, never the processor.
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

from shared.database.engine import Database
from shared.database.group_commit import GroupCommit
from shared.database.id_list import id_in
from shared.database.tables import gateway_ledger
from shared.lifecycle import FailureCode
from shared.payments.outcomes import Approved, Declined, GatewayAnswer

# See GroupCommit: how long to linger after a commit, as a multiple of the time it took. Large, for few large commits:
# the wait is short beside the delay of a gateway.
LINGER_FACTOR = 8.0


class EntryKind(StrEnum):
    """What happened to the money, by the word of an entry."""

    AUTHORIZE = "authorize"
    """Funds are held, and no money has moved yet."""
    SALE = "sale"
    """The money moved at once."""
    DECLINE = "decline"
    """The charge was declined: no money moves."""
    CAPTURE = "capture"
    """Held funds have moved."""
    VOID = "void"
    """Held funds were released: no money moves."""

    @property
    def step(self) -> int:
        """The step of the payment that the entry takes, 1 or 2. Each step of a payment happens once."""
        return 2 if self in {EntryKind.CAPTURE, EntryKind.VOID} else 1


MOVES_MONEY = (EntryKind.SALE, EntryKind.CAPTURE)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the ledger; `amount` is in minor units.

    `answer` is what the caller of the gateway gets. That of an authorization is given only after its capture.
    """

    payment_id: UUID
    kind: EntryKind
    amount: int
    currency: str
    answer: GatewayAnswer

    @property
    def key(self) -> str:
        """The primary key of the entry."""
        return f"{self.payment_id}:{self.kind}"


class Ledger:
    """The ledger. Entries of many payments share a transaction. Needs `run`."""

    def __init__(self, database: Database, *, batch_max: int, queue_max: int) -> None:
        self._database = database
        self._entries = GroupCommit(
            database, write, batch_max=batch_max, queue_max=queue_max, linger_factor=LINGER_FACTOR
        )

    async def record_entry(self, entry: Entry) -> Entry:
        """Write `entry` unless its step is taken. Return the payment's latest entry after that, committed.

        Raises DatabaseUnavailable or Overloaded if nothing was written, CommitUnknown if that is not known.
        """
        return await self._entries.submit(entry)

    async def find(self, payment_id: UUID) -> Entry | None:
        """Return the payment's latest entry, None if there is none. Raises DatabaseUnavailable."""
        async with self._database.read() as connection:
            return (await _latest(connection, [payment_id])).get(payment_id)

    async def run(self) -> None:
        """Write what arrives until `close`, then what is still queued."""
        await self._entries.run()

    def close(self) -> None:
        """Take no more entries; `run` returns when everything is written."""
        self._entries.close()


# Without a target it compiles on SQLite too.
INSERT = insert(gateway_ledger).on_conflict_do_nothing().returning(gateway_ledger.c.key)


async def write(connection: AsyncConnection, now: datetime, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Insert the entries whose step is not taken.

    Return, in the order of `entries`, the entry itself if it was inserted, else its payment's latest entry.
    """
    tried: dict[tuple[UUID, int], Entry] = {}
    # Of several entries for one step only the first is tried: the others find the step taken.
    for entry in entries:
        tried.setdefault((entry.payment_id, entry.kind.step), entry)
    # Every writer inserts in the same order, so that two batches never deadlock.
    rows = [_row(tried[step], now) for step in sorted(tried)]
    inserted = set((await connection.execute(INSERT, rows)).scalars())
    written = {id(entry) for entry in tried.values() if entry.key in inserted}
    taken = {entry.payment_id for entry in entries if id(entry) not in written}
    latest_entries = await _latest(connection, list(taken)) if taken else {}
    return [entry if id(entry) in written else latest_entries[entry.payment_id] for entry in entries]


async def _latest(connection: AsyncConnection, payment_ids: Sequence[UUID]) -> dict[UUID, Entry]:
    found = await connection.execute(
        select(gateway_ledger).where(id_in(gateway_ledger.c.payment_id, payment_ids)).order_by(gateway_ledger.c.step)
    )
    # The entry of the second step replaces that of the first.
    return {row.payment_id: _entry(row) for row in found}


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


def _to_json(answer: GatewayAnswer) -> dict[str, Any]:
    common = {"gateway": answer.gateway, "details": answer.details, "outcome_rule": answer.outcome_rule}
    match answer:
        case Approved():
            return common | {"transaction_id": answer.transaction_id}
        case Declined():
            return common | {"failure_code": answer.failure_code, "failure_reason": answer.failure_reason}
        case _:
            assert_never(answer)


def _from_json(stored: dict[str, Any]) -> GatewayAnswer:
    if "transaction_id" in stored:
        return Approved(stored["gateway"], stored["transaction_id"], stored["details"], stored["outcome_rule"])
    return Declined(
        stored["gateway"],
        FailureCode(stored["failure_code"]),
        stored["failure_reason"],
        stored["details"],
        stored["outcome_rule"],
    )
