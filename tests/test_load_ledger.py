"""The load compares the gateway's ledger with the records and shows what they hide."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert

from cli.load.checks import LoadVerdict, judge_ledger
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.tables import gateway_ledger
from shared.ids import new_id
from shared.lifecycle import PaymentStatus
from shared.verify.breaches import BreachKind
from shared.verify.kinds import KINDS
from tests.support.rows import accepted, write


def an_entry(payment_id: UUID, kind: str, amount: int, step: int = 1) -> dict[str, Any]:
    return {
        "key": f"{payment_id}:{kind}",
        "payment_id": payment_id,
        "step": step,
        "kind": kind,
        "amount": amount,
        "currency": "USD",
        "answer": {"transaction_id": "ch_1"},
        "created_at": datetime.now(UTC),
    }


async def test_the_ledger_shows_what_the_records_hide(settings: Settings, database: Database) -> None:
    now = datetime.now(UTC)
    good, declined, twice, unpaid, charged = (
        accepted(now, id=new_id(), order_id=name, status=status, due_at=None, amount=700, gateway_transaction_id="ch_1")
        for name, status in (
            ("good", PaymentStatus.COMPLETED),
            ("declined", PaymentStatus.FAILED),
            ("twice", PaymentStatus.COMPLETED),
            ("unpaid", PaymentStatus.COMPLETED),
            ("charged", PaymentStatus.FAILED),
        )
    )
    await write(database, good, declined, twice, unpaid, charged)
    orphan = new_id()
    async with database.transaction() as connection:
        await connection.execute(
            insert(gateway_ledger),
            [
                an_entry(good.id, "authorize", 700),
                an_entry(good.id, "capture", 700, step=2),
                an_entry(declined.id, "decline", 700),
                an_entry(twice.id, "sale", 700),
                an_entry(twice.id, "capture", 700, step=2),
                an_entry(charged.id, "sale", 700),
                an_entry(orphan, "sale", 5),
            ],
        )
    verdict = LoadVerdict()
    await judge_ledger(settings, verdict)
    assert {broken.words: set(broken.examples) for broken in verdict.broken} == {
        KINDS[BreachKind.CHARGED_TWICE].words: {str(twice.id)},
        KINDS[BreachKind.ENDED_CHARGED].words: {str(charged.id)},
        KINDS[BreachKind.COMPLETED_UNCHARGED].words: {str(unpaid.id)},
        KINDS[BreachKind.ORPHAN_CHARGE].words: {str(orphan)},
    }


async def test_two_charges_for_one_order_are_found_in_the_ledger(settings: Settings, database: Database) -> None:
    now = datetime.now(UTC)
    first = accepted(now, id=new_id(), order_id="7", status=PaymentStatus.FAILED, due_at=None, amount=700)
    second = replace(first, id=new_id(), status=PaymentStatus.COMPLETED, gateway_transaction_id="ch_1")
    await write(database, first, second)
    async with database.transaction() as connection:
        await connection.execute(
            insert(gateway_ledger), [an_entry(first.id, "sale", 700), an_entry(second.id, "sale", 700)]
        )
    verdict = LoadVerdict()
    await judge_ledger(settings, verdict)
    assert [broken.examples for broken in verdict.broken] == [(str(first.id),)]


async def test_a_ledger_that_agrees_is_named_as_compared(settings: Settings, database: Database) -> None:
    verdict = LoadVerdict()
    await judge_ledger(settings, verdict)
    assert verdict.is_clean
    assert verdict.compared == ["0 charges in the gateway's ledger with 0 COMPLETED payments"]
