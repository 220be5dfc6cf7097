"""The simulated gateway asked again: charges repeated, killed, unreachable and voided, on both databases."""

import asyncio
from dataclasses import replace

import pytest

from shared.database.engine import Database
from shared.lifecycle import FailureCode, MethodType
from shared.payments.outcomes import Approved, Declined
from shared.payments.payment import Payment
from tests.support.gateways import (
    Killed,
    Naps,
    all_entries,
    authorize_only,
    die,
    gateway_over,
    method,
    payment_with,
    running_ledger,
)
from tests.support.rows import ledger_entries
from worker.gateway.ledger import Ledger
from worker.gateway.protocol import Gateway, GatewayUnavailable

pytest_plugins = ["tests.support.gateway_fixtures"]

# -- asked again


@pytest.mark.parametrize("method_type", MethodType)
@pytest.mark.parametrize("scenario", [None, FailureCode.CARD_DECLINED])
async def test_a_repeated_charge_answers_the_same_and_is_recorded_once(
    database: Database, ledger: Ledger, method_type: MethodType, scenario: FailureCode | None
) -> None:
    payment = payment_with(method_type, scenario=scenario)
    first = await gateway_over(ledger).charge(payment)
    recorded = await ledger_entries(database, payment.id)
    assert await gateway_over(ledger).charge(replace(payment, gateway_tries=1)) == first
    assert await ledger_entries(database, payment.id) == recorded


@pytest.mark.parametrize("method_type", MethodType)
async def test_fifty_identical_charges_at_once_are_recorded_once(
    database: Database, ledger: Ledger, method_type: MethodType
) -> None:
    payment = payment_with(method_type)
    gateway = gateway_over(ledger)
    answers = await asyncio.gather(*(gateway.charge(payment) for _ in range(50)))
    assert isinstance(answers[0], Approved)
    assert all(answer == answers[0] for answer in answers)
    expected = ["authorize", "capture"] if method_type is MethodType.CREDIT_CARD else ["sale"]
    assert await all_entries(database) == expected


async def test_two_ledgers_over_one_database_record_once(database: Database) -> None:
    payments = [payment_with(method_type) for method_type in MethodType for _ in range(20)]
    async with running_ledger(database, batch_max=7) as one, running_ledger(database, batch_max=11) as other:
        first, second = gateway_over(one), gateway_over(other)
        ones = asyncio.gather(*(first.charge(payment) for payment in payments))
        others = asyncio.gather(*(second.charge(payment) for payment in reversed(payments)))
        assert await ones == list(reversed(await others))
    assert sorted(await all_entries(database)) == ["authorize"] * 20 + ["capture"] * 20 + ["sale"] * 40


async def test_other_settings_do_not_change_what_is_on_record(database: Database, ledger: Ledger) -> None:
    approved, declined = payment_with(), payment_with(scenario=FailureCode.CARD_DECLINED)
    answers = [await gateway_over(ledger).charge(payment) for payment in (approved, declined)]
    other = gateway_over(ledger, seed="another seed", success_rate=0.0)
    assert [await other.charge(approved), await other.charge(replace(declined, method=method()))] == answers
    assert await ledger_entries(database, approved.id) == ["authorize", "capture"]
    assert await ledger_entries(database, declined.id) == ["decline"]


async def test_a_killed_charge_is_found_and_finished_under_the_same_id(database: Database, ledger: Ledger) -> None:
    payment = payment_with()
    await authorize_only(ledger, payment)
    assert await ledger_entries(database, payment.id) == ["authorize"]
    authorized = (await ledger.on_record(payment.id)).settled
    other = gateway_over(ledger, seed="another seed", success_rate=0.0)
    answer = await other.charge(payment)
    assert isinstance(answer, Approved)
    assert authorized is not None
    assert answer == authorized.answer
    assert await ledger_entries(database, payment.id) == ["authorize", "capture"]


async def test_a_charge_killed_before_its_answer_is_found_finished(database: Database, ledger: Ledger) -> None:
    payment = payment_with()
    with pytest.raises(Killed):
        await gateway_over(ledger, sleep=Naps(at=3, what=die)).charge(payment)
    assert await ledger_entries(database, payment.id) == ["authorize", "capture"]
    assert isinstance(await gateway_over(ledger).charge(payment), Approved)
    assert await ledger_entries(database, payment.id) == ["authorize", "capture"]


async def test_a_charge_killed_at_its_start_left_nothing(database: Database, ledger: Ledger) -> None:
    payment = payment_with()
    with pytest.raises(Killed):
        await gateway_over(ledger, sleep=Naps(at=1, what=die)).charge(payment)
    assert await ledger_entries(database, payment.id) == []


# -- a network error


async def test_a_network_error_records_nothing_on_every_try(database: Database, ledger: Ledger) -> None:
    payment = payment_with(amount=1503)
    for number in range(4):
        naps = Naps()
        gateway = gateway_over(ledger, failure_scenarios=True, sleep=naps)
        with pytest.raises(GatewayUnavailable) as unavailable:
            await gateway.charge(replace(payment, gateway_tries=number))
        assert unavailable.value.failure_code is FailureCode.NETWORK_ERROR
        assert unavailable.value.outcome_rule == "amount"
        assert sum(naps.taken) >= 1.0
    assert await all_entries(database) == []


async def test_a_drawn_network_error_fails_every_try(database: Database, ledger: Ledger) -> None:
    gateway = gateway_over(ledger, success_rate=0.0)
    unreachable = [payment for payment in map(numbered, range(60)) if await is_unreachable(gateway, payment)]
    # A fifth of the failures, and the same ones in each run.
    assert 3 < len(unreachable) < 25
    for payment in unreachable:
        assert await is_unreachable(gateway, replace(payment, gateway_tries=1))
        assert await ledger_entries(database, payment.id) == []


def numbered(number: int) -> Payment:
    return payment_with(order_id=f"order-{number}")


async def is_unreachable(gateway: Gateway, payment: Payment) -> bool:
    try:
        await gateway.charge(payment)
    except GatewayUnavailable:
        return True
    return False


async def test_a_network_error_never_denies_a_charge_that_is_on_record(database: Database, ledger: Ledger) -> None:
    charged, authorized = payment_with(amount=1503), payment_with(amount=1503)
    first = await gateway_over(ledger).charge(charged)
    await authorize_only(ledger, authorized)
    failing = gateway_over(ledger, failure_scenarios=True)
    assert await failing.charge(charged) == first
    assert isinstance(await failing.charge(authorized), Approved)
    assert await ledger_entries(database, authorized.id) == ["authorize", "capture"]


# -- voiding


@pytest.mark.parametrize("method_type", MethodType)
async def test_voiding_a_finished_charge_fetches_its_answer(
    database: Database, ledger: Ledger, method_type: MethodType
) -> None:
    payment = payment_with(method_type)
    answer = await gateway_over(ledger).charge(payment)
    recorded = await ledger_entries(database, payment.id)
    assert isinstance(answer, Approved)
    assert await gateway_over(ledger).void_or_fetch(payment) == answer
    assert await ledger_entries(database, payment.id) == recorded


async def test_voiding_what_is_only_authorized_releases_the_funds(database: Database, ledger: Ledger) -> None:
    payment = payment_with()
    await authorize_only(ledger, payment)
    answer = await gateway_over(ledger).void_or_fetch(payment)
    assert isinstance(answer, Declined)
    assert (answer.failure_code, answer.outcome_rule) == (FailureCode.PROCESSING_ERROR, "closed")
    assert await ledger_entries(database, payment.id) == ["authorize", "void"]
    assert await gateway_over(ledger).void_or_fetch(payment, FailureCode.NETWORK_ERROR) == answer
    assert await gateway_over(ledger).charge(payment) == answer
    assert await ledger_entries(database, payment.id) == ["authorize", "void"]


@pytest.mark.parametrize("method_type", MethodType)
async def test_a_charge_that_arrives_after_the_void_is_declined(
    database: Database, ledger: Ledger, method_type: MethodType
) -> None:
    payment = payment_with(method_type)
    voided = await gateway_over(ledger).void_or_fetch(payment)
    assert isinstance(voided, Declined)
    assert (voided.failure_code, voided.outcome_rule) == (FailureCode.PROCESSING_ERROR, "closed")
    assert await gateway_over(ledger).charge(payment) == voided
    assert await ledger_entries(database, payment.id) == ["decline"]


async def test_voiding_a_declined_charge_fetches_its_decline(database: Database, ledger: Ledger) -> None:
    payment = payment_with(scenario=FailureCode.LOST_CARD)
    declined = await gateway_over(ledger).charge(payment)
    assert await gateway_over(ledger).void_or_fetch(payment) == declined
    assert await ledger_entries(database, payment.id) == ["decline"]


async def test_voiding_between_authorization_and_capture_stops_the_charge(database: Database, ledger: Ledger) -> None:
    payment = payment_with()
    naps = Naps(at=2, what=lambda: gateway_over(ledger).void_or_fetch(payment))
    answer = await gateway_over(ledger, sleep=naps).charge(payment)
    assert isinstance(answer, Declined)
    assert answer.failure_code is FailureCode.PROCESSING_ERROR
    assert await ledger_entries(database, payment.id) == ["authorize", "void"]


async def test_voiding_takes_no_time(ledger: Ledger) -> None:
    naps = Naps()
    await gateway_over(ledger, sleep=naps).void_or_fetch(payment_with())
    assert naps.taken == []


async def test_a_payment_voided_for_its_network_error_says_what_decided_it(database: Database, ledger: Ledger) -> None:
    payment = payment_with(amount=1503)
    gateway = gateway_over(ledger, failure_scenarios=True)
    with pytest.raises(GatewayUnavailable):
        await gateway.charge(payment)
    answer = await gateway.void_or_fetch(payment, FailureCode.NETWORK_ERROR)
    assert isinstance(answer, Declined)
    assert (answer.failure_code, answer.outcome_rule) == (FailureCode.NETWORK_ERROR, "amount")
    assert await ledger_entries(database, payment.id) == ["decline"]


@pytest.mark.parametrize("method_type", MethodType)
async def test_charges_and_voids_at_once_agree_on_what_happened(
    database: Database, ledger: Ledger, method_type: MethodType
) -> None:
    gateway = gateway_over(ledger)
    for _ in range(10):
        payment = payment_with(method_type)
        calls = [gateway.charge(payment) if number % 2 else gateway.void_or_fetch(payment) for number in range(20)]
        answers = await asyncio.gather(*calls)
        assert all(answer == answers[0] for answer in answers)
        recorded = await ledger_entries(database, payment.id)
        has_charged = recorded in (["authorize", "capture"], ["sale"])
        assert has_charged == isinstance(answers[0], Approved)
        assert has_charged or recorded in (["authorize", "void"], ["decline"])
