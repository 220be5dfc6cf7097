"""The simulated gateway's own ledger: what happened to the money, whatever the row of the payment says.

An entry is inserted once and never changed. Unique keys decide every race. Of a payment's own steps, 1 is one of
authorize, sale and decline, and 2 is one of capture and void. Each capture on request and each refund has a step of its
own, by its number, which is above 2. A payment has one capture or void, whatever its step. What is settled late has an
entry before that: 0 for the payment's own steps, the negative number for a refund.

Only the gateway reads and writes the ledger, never the processor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, assert_never
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.clock import rfc3339, whole_milliseconds
from shared.database.engine import Database
from shared.database.group_commit import GroupCommit
from shared.database.id_list import id_in
from shared.database.tables import gateway_ledger
from shared.lifecycle import CaptureFailureCode, FailureCode
from shared.payments.outcomes import Approved, Declined, GatewayAnswer
from shared.refund_lifecycle import RefundFailureCode
from shared.simulation.ledger_entries import CAPTURE_OR_VOID, PENDING_STEP, EntryKind

# See GroupCommit: how long to linger after a commit, as a multiple of the time it took. Large, for few large commits:
# the wait is short beside the delay of a gateway.
LINGER_FACTOR = 8.0

FIRST_STEP, SECOND_STEP = 1, 2


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the ledger; `amount` is in minor units.

    `answer` is what the caller of the gateway gets. That of an authorization within a charge is given only after its
    capture. `number` is that of a capture on request or of a refund; None = the entry is of the payment's own steps.
    `settles_at` is the moment from which on a pending operation is settled.
    """

    payment_id: UUID
    kind: EntryKind
    amount: int
    currency: str
    answer: GatewayAnswer
    number: int | None = None
    settles_at: datetime | None = None

    @property
    def step(self) -> int:
        """The step of the payment that the entry takes."""
        if self.kind is EntryKind.PENDING:
            return PENDING_STEP if self.number is None else -self.number
        if self.number is not None:
            return self.number
        return SECOND_STEP if self.kind in CAPTURE_OR_VOID else FIRST_STEP

    @property
    def key(self) -> str:
        """The primary key of the entry."""
        key = f"{self.payment_id}:{self.kind}"
        return key if self.number is None else f"{key}:{self.number}"


@dataclass(frozen=True, slots=True)
class OnRecord:
    """What is on record of an operation: the latest entry that settled something, and the pending one before it."""

    settled: Entry | None
    pending: Entry | None


class Ledger:
    """The ledger. Entries of many payments share a transaction. Needs `run`."""

    def __init__(self, database: Database, *, batch_max: int, queue_max: int) -> None:
        self._database = database
        self._entries = GroupCommit(
            database, write, batch_max=batch_max, queue_max=queue_max, linger_factor=LINGER_FACTOR
        )

    async def record_entry(self, entry: Entry) -> Entry:
        """Write `entry` unless its step is taken. Return what is on record after that, committed.

        That is the entry itself, or the one that is in its way: the one with the same number, the payment's capture or
        void, or the latest of its own steps.

        Raises DatabaseUnavailable or Overloaded if nothing was written, CommitUnknown if that is not known.
        """
        return await self._entries.submit(entry)

    async def begin_pending(self, entry: Entry, wait_s: float) -> Entry:
        """Write the pending `entry`, to be settled in `wait_s` seconds, unless an earlier call did; return that one.

        Raises as `record_entry` does.
        """
        async with self._database.read() as connection:
            now = await self._database.clock.now(connection)
        # In the precision in which it is stored, so that every call hears of the same moment.
        settles_at = whole_milliseconds(now + timedelta(seconds=wait_s))
        return await self.record_entry(replace(entry, settles_at=settles_at))

    async def settles_in_s(self, pending: Entry) -> float:
        """Return the seconds until a pending entry is settled, 0 if they are over. Raises DatabaseUnavailable."""
        async with self._database.read() as connection:
            now = await self._database.clock.now(connection)
        return max(0.0, (pending.settles_at - now).total_seconds()) if pending.settles_at else 0.0

    async def on_record(self, payment_id: UUID, number: int | None = None) -> OnRecord:
        """Return what is on record of a capture or refund; without a number, of the payment's own steps.

        Raises DatabaseUnavailable.
        """
        async with self._database.read() as connection:
            entries = (await _entries(connection, [payment_id])).get(payment_id, [])
        of_operation = [entry for entry in entries if entry.number == number]
        return OnRecord(
            settled=next((each for each in reversed(of_operation) if each.kind is not EntryKind.PENDING), None),
            pending=next((each for each in of_operation if each.kind is EntryKind.PENDING), None),
        )

    async def run(self) -> None:
        """Write what arrives until `close`, then what is still queued."""
        await self._entries.run()

    def close(self) -> None:
        """Take no more entries; `run` returns when everything is written."""
        self._entries.close()


# Without a target it compiles on SQLite too.
INSERT = insert(gateway_ledger).on_conflict_do_nothing().returning(gateway_ledger.c.key)


async def write(connection: AsyncConnection, now: datetime, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Insert the entries whose step is not taken. Return what is on record for each, in the order of `entries`."""
    tried: dict[tuple[UUID, int], Entry] = {}
    # Of several entries for one step only the first is tried: the others find the step taken.
    for entry in entries:
        tried.setdefault((entry.payment_id, entry.step), entry)
    # Every writer inserts in the same order, so that two batches never deadlock.
    rows = [_row(tried[step], now) for step in sorted(tried)]
    inserted = set((await connection.execute(INSERT, rows)).scalars())
    written = {id(entry) for entry in tried.values() if entry.key in inserted}
    refused = [entry for entry in entries if id(entry) not in written]
    found = await _entries(connection, list({entry.payment_id for entry in refused})) if refused else {}
    return [entry if id(entry) in written else _in_the_way(entry, found[entry.payment_id]) for entry in entries]


async def _entries(connection: AsyncConnection, payment_ids: Sequence[UUID]) -> dict[UUID, list[Entry]]:
    """Return all entries of these payments, by step."""
    found = await connection.execute(
        select(gateway_ledger).where(id_in(gateway_ledger.c.payment_id, payment_ids)).order_by(gateway_ledger.c.step)
    )
    entries: dict[UUID, list[Entry]] = {}
    for row in found:
        entry = _entry(row)
        entries.setdefault(entry.payment_id, []).append(entry)
    return entries


def _in_the_way(refused: Entry, of_payment: Sequence[Entry]) -> Entry:
    """Return the entry because of which another one was not inserted."""
    for entry in of_payment:
        if entry.step == refused.step and refused.step != FIRST_STEP:
            return entry
    if refused.kind in CAPTURE_OR_VOID:
        return next(entry for entry in of_payment if entry.kind in CAPTURE_OR_VOID)
    return next(entry for entry in reversed(of_payment) if entry.number is None)


def _row(entry: Entry, now: datetime) -> dict[str, Any]:
    return {
        "key": entry.key,
        "payment_id": entry.payment_id,
        "step": entry.step,
        "kind": entry.kind,
        "amount": entry.amount,
        "currency": entry.currency,
        "answer": _to_json(entry.answer) | ({"settles_at": rfc3339(entry.settles_at)} if entry.settles_at else {}),
        "created_at": now,
    }


def _entry(row: Row[Any]) -> Entry:
    payment_id, kind = UUID(str(row.payment_id)), EntryKind(row.kind)
    number = abs(row.step) if abs(row.step) > SECOND_STEP else None
    settles_at = row.answer.get("settles_at")
    moment = datetime.fromisoformat(settles_at) if settles_at else None
    return Entry(payment_id, kind, row.amount, row.currency, _from_json(row.answer), number, moment)


def _to_json(answer: GatewayAnswer) -> dict[str, Any]:
    common = {"gateway": answer.gateway, "details": answer.details, "outcome_rule": answer.outcome_rule}
    if answer.remark:
        common["remark"] = answer.remark
    match answer:
        case Approved():
            return common | {"transaction_id": answer.transaction_id}
        case Declined():
            return common | {"failure_code": answer.failure_code, "failure_reason": answer.failure_reason}
        case _:
            assert_never(answer)


def _from_json(stored: dict[str, Any]) -> GatewayAnswer:
    remark = stored.get("remark")
    if "transaction_id" in stored:
        return Approved(stored["gateway"], stored["transaction_id"], stored["details"], stored["outcome_rule"], remark)
    return Declined(
        stored["gateway"],
        _failure_code(stored["failure_code"]),
        stored["failure_reason"],
        stored["details"],
        stored["outcome_rule"],
        remark,
    )


def _failure_code(code: str) -> FailureCode | CaptureFailureCode | RefundFailureCode:
    for codes in (FailureCode, CaptureFailureCode, RefundFailureCode):
        if code in set(codes):
            return codes(code)
    raise ValueError(f"{code} is no failure code")
