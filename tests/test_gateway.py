"""A charge of the simulated gateway and the time it takes, on both databases. No test waits for a delay."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from api.cards import CARD_SCENARIOS
from api.paypal_addresses import ADDRESS_SCENARIOS
from shared.database.engine import Database
from shared.ids import new_id
from shared.lifecycle import FailureCode, MethodType
from shared.payments.outcomes import Approved, Declined
from shared.payments.payment import Payment
from shared.simulation.scenarios import Scenario, scenario_members
from tests.support.gateways import Naps, gateway_over, payment_with
from tests.support.rows import ledger_entries
from worker.gateway.answers import paypal_fee
from worker.gateway.ledger import Ledger
from worker.gateway.protocol import GatewayUnavailable

pytest_plugins = ["tests.support.gateway_fixtures"]


ID_FORMATS = {
    "stripe_mock": r"ch_[0-9A-Za-z]{24}",
    "square_mock": r"sq_[0-9A-Za-z]{20}",
    "paypal_mock": r"PAY-[0-9A-Z]{17}",
}


# -- a charge


async def test_a_credit_card_is_authorized_and_then_captured(database: Database, ledger: Ledger) -> None:
    payment = payment_with(MethodType.CREDIT_CARD)
    answer = await gateway_over(ledger).charge(payment)
    assert isinstance(answer, Approved)
    assert set(answer.details) == {"authorization_code", "avs_result", "cvc_result"}
    assert re.fullmatch(r"[0-9A-Z]{6}", answer.details["authorization_code"])
    assert answer.details["avs_result"] in {"Y", "Z", "A", "U"}
    assert answer.details["cvc_result"] == "M"
    assert answer.outcome_rule == "rate"
    assert await ledger_entries(database, payment.id) == ["authorize", "capture"]


async def test_a_debit_card_is_charged_with_one_message(database: Database, ledger: Ledger) -> None:
    payment = payment_with(MethodType.DEBIT_CARD)
    answer = await gateway_over(ledger).charge(payment)
    assert isinstance(answer, Approved)
    assert set(answer.details) == {"authorization_code"}
    assert await ledger_entries(database, payment.id) == ["sale"]


async def test_paypal_names_the_payer_and_its_fee(database: Database, ledger: Ledger) -> None:
    payment = payment_with(MethodType.PAYPAL, amount=10_000, currency="EUR")
    answer = await gateway_over(ledger).charge(payment)
    assert isinstance(answer, Approved)
    assert answer.gateway == "paypal_mock"
    assert re.fullmatch(r"[0-9A-Z]{13}", answer.details["payer_id"])
    assert answer.details["fee"] == {"amount": 398, "currency": "EUR"}
    assert set(answer.details) == {"payer_id", "fee"}
    assert await ledger_entries(database, payment.id) == ["sale"]


@pytest.mark.parametrize(
    ("amount", "fee"),
    [(1, 1), (50, 50), (51, 51), (52, 51), (1585, 104), (10_000, 398), (10**18, 34_900_000_000_000_049)],
)
def test_the_paypal_fee_is_a_share_and_a_fixed_part_and_never_above_the_amount(amount: int, fee: int) -> None:
    assert paypal_fee(amount) == fee


async def test_every_gateway_issues_ids_in_its_own_format_and_none_twice(ledger: Ledger) -> None:
    gateway = gateway_over(ledger)
    payments = [payment_with(method_type) for method_type in MethodType for _ in range(60)]
    answers = await asyncio.gather(*(gateway.charge(payment) for payment in payments))
    approved = [answer for answer in answers if isinstance(answer, Approved)]
    assert {answer.gateway for answer in approved} == set(ID_FORMATS)
    for answer in approved:
        assert re.fullmatch(ID_FORMATS[answer.gateway], answer.transaction_id)
    assert len({answer.transaction_id for answer in approved}) == len(payments)


async def test_two_payments_with_one_seed_key_end_alike_under_different_ids(ledger: Ledger) -> None:
    one, other = payment_with(order_id="order-1"), payment_with(order_id="order-1")
    first, second = await gateway_over(ledger).charge(one), await gateway_over(ledger).charge(other)
    assert isinstance(first, Approved)
    assert isinstance(second, Approved)
    assert first.gateway == second.gateway
    assert first.transaction_id != second.transaction_id


def failures_of(scenarios: Mapping[str, Scenario]) -> list[FailureCode]:
    return [scenario.failure for scenario in scenarios.values() if scenario.failure is not None]


@pytest.mark.parametrize("failure", failures_of(CARD_SCENARIOS))
async def test_a_failing_test_card_is_declined_and_the_decline_is_recorded(
    database: Database, ledger: Ledger, failure: FailureCode
) -> None:
    for method_type in (MethodType.CREDIT_CARD, MethodType.DEBIT_CARD):
        payment = payment_with(method_type, scenario=failure)
        answer = await gateway_over(ledger).charge(payment)
        assert isinstance(answer, Declined)
        assert (answer.failure_code, answer.outcome_rule) == (failure, "card")
        assert answer.failure_reason.endswith(".")
        assert await ledger_entries(database, payment.id) == ["decline"]


@pytest.mark.parametrize("failure", failures_of(ADDRESS_SCENARIOS))
async def test_a_failing_test_address_is_declined_by_paypal(ledger: Ledger, failure: FailureCode) -> None:
    answer = await gateway_over(ledger).charge(payment_with(MethodType.PAYPAL, scenario=failure))
    assert isinstance(answer, Declined)
    assert (answer.gateway, answer.failure_code, answer.outcome_rule) == ("paypal_mock", failure, "address")


async def test_a_declined_credit_card_shows_what_the_issuer_checked(ledger: Ledger) -> None:
    wrong_cvc = await gateway_over(ledger).charge(payment_with(scenario=FailureCode.INCORRECT_CVC))
    stolen = await gateway_over(ledger).charge(payment_with(scenario=FailureCode.STOLEN_CARD))
    assert isinstance(wrong_cvc, Declined)
    assert isinstance(stolen, Declined)
    assert wrong_cvc.details is not None
    assert stolen.details is not None
    assert set(wrong_cvc.details) == set(stolen.details) == {"avs_result", "cvc_result"}
    assert (wrong_cvc.details["cvc_result"], stolen.details["cvc_result"]) == ("N", "M")


async def test_a_test_amount_declines_only_when_amounts_are_switched_on(ledger: Ledger) -> None:
    answer = await gateway_over(ledger, failure_scenarios=True).charge(payment_with(amount=1501))
    assert isinstance(answer, Declined)
    assert (answer.failure_code, answer.outcome_rule) == (FailureCode.INSUFFICIENT_FUNDS, "amount")
    assert isinstance(await gateway_over(ledger).charge(payment_with(amount=1501)), Approved)


async def test_an_unset_seed_is_a_seed_too(ledger: Ledger) -> None:
    payment = payment_with()
    assert await gateway_over(ledger, seed=None).charge(payment) == await gateway_over(ledger, seed="").charge(payment)


# -- its delay


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)  # drawn before anything is written
async def test_a_try_takes_between_the_two_delays_and_its_steps_lie_inside(ledger: Ledger) -> None:
    for _ in range(50):
        naps = Naps()
        await gateway_over(ledger, sleep=naps, delay_min_ms=1000, delay_max_ms=1200).charge(payment_with())
        assert 1.0 <= sum(naps.taken) <= 1.2000001
        # To the authorization, to the capture and to the answer.
        assert len(naps.taken) == 3
        assert all(nap >= 0 for nap in naps.taken)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)  # drawn before anything is written
async def test_delays_are_spread_over_the_whole_range(ledger: Ledger) -> None:
    delays = []
    for number in range(100):
        naps = Naps()
        payment = payment_with(MethodType.DEBIT_CARD, order_id=f"order-{number}")
        await gateway_over(ledger, sleep=naps).charge(payment)
        delays.append(sum(naps.taken))
    assert min(delays) < 1.1
    assert max(delays) > 2.9


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)  # drawn before anything is written
async def test_outcome_and_delay_are_the_same_in_any_order(ledger: Ledger) -> None:
    payments = [payment_with(order_id=f"order-{number}") for number in range(40)]
    forwards = [await outcome_of(ledger, payment) for payment in payments]
    again = [replace(payment, id=new_id()) for payment in payments]
    backwards = [await outcome_of(ledger, payment) for payment in reversed(again)]
    assert list(reversed(backwards)) == forwards
    assert {kind for kind, *_ in forwards} == {"Approved", "Declined", "Unavailable"}


async def outcome_of(ledger: Ledger, payment: Payment) -> tuple[str, ...]:
    """Charge the payment; return what was decided, and the delays."""
    naps = Naps()
    gateway = gateway_over(ledger, sleep=naps, success_rate=0.5)
    try:
        answer = await gateway.charge(payment)
    except GatewayUnavailable:
        return ("Unavailable", *map(str, naps.taken))
    failure = answer.failure_code if isinstance(answer, Declined) else ""
    kind = "Declined" if failure else "Approved"
    return (kind, failure, str(answer.gateway), *map(str, naps.taken))


async def test_each_try_takes_its_own_time(ledger: Ledger) -> None:
    naps = [Naps() for _ in range(3)]
    for number, nap in enumerate(naps):
        await gateway_over(ledger, sleep=nap).charge(payment_with(order_id="order-1", gateway_tries=number))
    assert len({sum(nap.taken) for nap in naps}) == 3


@pytest.mark.parametrize("scenario", [scenario for scenario in CARD_SCENARIOS.values() if scenario.checks])
async def test_a_card_with_named_results_of_its_checks_is_approved_with_them(
    ledger: Ledger, scenario: Scenario
) -> None:
    payment = payment_with(MethodType.CREDIT_CARD)
    named = replace(payment, method={**payment.method, **scenario_members(scenario)})
    answer = await gateway_over(ledger, success_rate=0).charge(named)
    assert isinstance(answer, Approved)
    assert scenario.checks is not None
    assert answer.details.items() >= scenario.checks.to_json().items()
