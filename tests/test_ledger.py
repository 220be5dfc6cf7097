"""The gateway's own ledger, and what the gateway answers when the ledger fails, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.database.tables import gateway_ledger
from shared.errors import CommitUnknown
from shared.ids import new_id
from shared.lifecycle import MethodType
from shared.payments.outcomes import Approved
from shared.simulation.ledger_entries import EntryKind
from tests.support.gateways import all_entries, gateway_over, payment_with, running_ledger
from tests.support.rows import ledger_entries
from tests.support.waiting import eventually
from worker.gateway.ledger import Entry, Ledger, write
from worker.gateway.protocol import OutcomeUnknown

pytest_plugins = ["tests.support.gateway_fixtures"]

# -- entries


async def test_a_batch_answers_each_payment_with_its_own_entry(database: Database, ledger: Ledger) -> None:
    entries = [entry_for(new_id(), f"ch_{number}") for number in range(250)]
    repeated = [replace(entry, answer=replace(entry.answer, gateway="another")) for entry in entries[::10]]
    answers = await asyncio.gather(*(ledger.record_entry(entry) for entry in entries + repeated))
    assert answers == entries + entries[::10]
    assert len(await all_entries(database)) == 250


async def test_a_batch_waits_for_another_writer_before_it_locks_what_that_needs_next(database: Database) -> None:
    """Every writer writes in the order of the payments: else each of two batches could wait for the other."""
    low, high = (entry_for(payment_id, "ch_1") for payment_id in (new_id(), new_id()))
    async with running_ledger(database) as ledger:
        async with database.transaction() as connection:
            now = await database.clock.now(connection)
            await write(connection, now, [low])
            recording = asyncio.gather(*(ledger.record_entry(entry) for entry in (high, low)))
            # On SQLite the whole transaction is a lock.
            if not database.is_sqlite:
                await eventually(lambda: a_transaction_waits_for_a_lock(database))
                await connection.execute(text("SET LOCAL lock_timeout = '100ms'"))
            await write(connection, now, [high])
        assert await recording == [high, low]


async def a_transaction_waits_for_a_lock(database: Database) -> bool:
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with database.read() as connection:
        return bool((await connection.execute(waiting)).scalar_one())


async def test_only_one_of_the_first_steps_of_a_payment_happens(database: Database, ledger: Ledger) -> None:
    payment_id = new_id()
    entries = [
        replace(entry_for(payment_id, "ch_1"), kind=kind)
        for kind in (EntryKind.SALE, EntryKind.AUTHORIZE, EntryKind.DECLINE)
    ]
    answers = await asyncio.gather(*(ledger.record_entry(entry) for entry in entries))
    assert answers == [entries[0]] * 3
    assert await all_entries(database) == ["sale"]


async def test_a_payment_is_either_captured_or_voided(database: Database, ledger: Ledger) -> None:
    authorized = entry_for(new_id(), "ch_1")
    void = replace(authorized, kind=EntryKind.VOID)
    await ledger.record_entry(authorized)
    captured = replace(authorized, kind=EntryKind.CAPTURE)
    first, second = await asyncio.gather(ledger.record_entry(void), ledger.record_entry(captured))
    assert first == second == void
    assert await all_entries(database) == ["authorize", "void"]


async def test_an_unknown_payment_is_not_in_the_ledger(ledger: Ledger) -> None:
    assert (await ledger.on_record(new_id())).settled is None


async def test_an_entry_keeps_the_amount_and_the_key_of_its_payment(database: Database, ledger: Ledger) -> None:
    payment = payment_with(MethodType.DEBIT_CARD, amount=2**62, currency="KWD")
    await gateway_over(ledger).charge(payment)
    async with database.read() as connection:
        row = (await connection.execute(select(gateway_ledger))).one()
    assert (row.key, row.step, row.amount, row.currency) == (f"{payment.id}:sale", 1, 2**62, "KWD")


def entry_for(payment_id: UUID, transaction_id: str) -> Entry:
    return Entry(payment_id, EntryKind.AUTHORIZE, 100, "USD", Approved("stripe_mock", transaction_id, {}, "rate"))


# -- a ledger that fails


class AnswersLost(Database):
    """A database that commits and then does not confirm it."""

    def __init__(self, real: Database) -> None:
        self.clock = real.clock
        self._real = real

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self._real.transaction() as connection:
            yield connection
        raise CommitUnknown("the connection broke")


@pytest.mark.parametrize("method_type", MethodType)
async def test_a_lost_commit_is_an_unknown_outcome_that_asking_again_resolves(
    database: Database, ledger: Ledger, method_type: MethodType
) -> None:
    payment = payment_with(method_type)
    async with running_ledger(AnswersLost(database)) as unlucky:
        with pytest.raises(OutcomeUnknown):
            await gateway_over(unlucky).charge(payment)
    assert len(await ledger_entries(database, payment.id)) == 1
    assert isinstance(await gateway_over(ledger).charge(payment), Approved)
    assert await ledger_entries(database, payment.id) in (["authorize", "capture"], ["sale"])


async def test_an_unreachable_database_is_an_unknown_outcome(settings: Settings) -> None:
    nowhere = open_database(settings.model_copy(update={"database_url": "postgresql+asyncpg://u:p@127.0.0.1:1/none"}))
    async with running_ledger(nowhere) as ledger:
        with pytest.raises(OutcomeUnknown):
            await gateway_over(ledger).charge(payment_with())
        with pytest.raises(OutcomeUnknown):
            await gateway_over(ledger).void_or_fetch(payment_with())
        # The gateway reads its ledger before it says that nothing happened.
        with pytest.raises(OutcomeUnknown):
            await gateway_over(ledger, failure_scenarios=True).charge(payment_with(amount=1503))
    await nowhere.dispose()


async def test_a_full_queue_of_entries_is_an_unknown_outcome(database: Database) -> None:
    async with running_ledger(database, queue_max=0) as ledger:
        with pytest.raises(OutcomeUnknown):
            await gateway_over(ledger).charge(payment_with())
    assert await all_entries(database) == []
