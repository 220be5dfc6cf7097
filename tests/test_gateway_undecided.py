"""What the simulated gateway leaves undecided: it asks the customer first, or settles later than it answers."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.lifecycle import ActionResult, FailureCode, MethodType, OutcomeRule
from shared.payments.outcomes import ActionRequired, Approved, Declined, Pending
from shared.payments.payment import Payment
from shared.simulation.delays import CHARGE_SETTLES_MAX_S, CHARGE_SETTLES_MIN_S, REFUND_SETTLES_S
from shared.simulation.scenarios import (
    CHALLENGED,
    CHALLENGED_THEN_DECLINED,
    CHALLENGED_WITHOUT_FUNDS,
    PENDING,
    PENDING_THEN_DECLINED,
    REFUND_SLOW,
    Scenario,
    scenario_members,
)
from tests.support.gateways import gateway_over, payment_with, running_ledger
from tests.support.harness import SetClock
from tests.support.rows import ledger_entries
from tests.test_gateway_refunds import charged, refund_of
from worker.gateway.late_answers import LateAnswer
from worker.gateway.ledger import Ledger
from worker.gateway.protocol import GatewayUnavailable

SHOP = "https://shop.example/paid"


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def database(settings: Settings, clock: SetClock) -> AsyncIterator[Database]:
    opened = open_database(settings, clock=clock)
    yield opened
    await opened.dispose()


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with running_ledger(database) as ledger:
        yield ledger


def paying(scenario: Scenario | None, method_type: MethodType = MethodType.CREDIT_CARD, **changes: Any) -> Payment:
    copied = {"type": method_type, "details": {}, **scenario_members(scenario)}
    return payment_with(method_type, **{"return_url": SHOP, **changes, "method": copied})


def after_approval(payment: Payment) -> Payment:
    return replace(payment, action_result=ActionResult.APPROVED)


# -- the customer is asked


@pytest.mark.parametrize(
    "payment",
    [
        paying(CHALLENGED),
        paying(CHALLENGED_THEN_DECLINED, MethodType.DEBIT_CARD),
        paying(None, MethodType.PAYPAL),
        paying(Scenario(FailureCode.INSTRUMENT_DECLINED), MethodType.PAYPAL),
        paying(PENDING, MethodType.PAYPAL),
    ],
)
async def test_nothing_happens_before_the_customer_approves(
    database: Database, ledger: Ledger, payment: Payment
) -> None:
    gateway = gateway_over(ledger)
    for ask in (gateway.charge, gateway.authorize):
        assert isinstance(await ask(payment), ActionRequired)
    assert await ledger_entries(database, payment.id) == []


@pytest.mark.parametrize("scenario", [None, Scenario(None), Scenario(FailureCode.LOST_CARD)])
async def test_other_cards_are_charged_at_once_although_the_customer_could_be_asked(
    ledger: Ledger, scenario: Scenario | None
) -> None:
    assert isinstance(await gateway_over(ledger).charge(paying(scenario)), Approved | Declined)


async def test_without_a_page_paypal_is_charged_and_a_challenged_card_fails(ledger: Ledger) -> None:
    gateway = gateway_over(ledger)
    assert isinstance(await gateway.charge(paying(None, MethodType.PAYPAL, return_url=None)), Approved)
    answer = await gateway.charge(paying(CHALLENGED, return_url=None))
    assert isinstance(answer, Declined)
    assert (answer.failure_code, answer.outcome_rule) == (FailureCode.AUTHENTICATION_REQUIRED, OutcomeRule.CARD)


@pytest.mark.parametrize(
    ("scenario", "method_type", "failure", "rule"),
    [
        (CHALLENGED, MethodType.CREDIT_CARD, None, OutcomeRule.RATE),
        (CHALLENGED_THEN_DECLINED, MethodType.CREDIT_CARD, FailureCode.CARD_DECLINED, OutcomeRule.CARD),
        (CHALLENGED_WITHOUT_FUNDS, MethodType.DEBIT_CARD, FailureCode.INSUFFICIENT_FUNDS, OutcomeRule.CARD),
        (None, MethodType.PAYPAL, None, OutcomeRule.RATE),
        (
            Scenario(FailureCode.INSTRUMENT_DECLINED),
            MethodType.PAYPAL,
            FailureCode.INSTRUMENT_DECLINED,
            OutcomeRule.ADDRESS,
        ),
    ],
)
async def test_an_approved_payment_ends_as_its_test_value_says(
    ledger: Ledger, scenario: Scenario | None, method_type: MethodType, failure: FailureCode | None, rule: OutcomeRule
) -> None:
    answer = await gateway_over(ledger).charge(after_approval(paying(scenario, method_type)))
    assert isinstance(answer, Approved if failure is None else Declined)
    assert answer.outcome_rule == rule
    if isinstance(answer, Declined):
        assert answer.failure_code == failure


async def test_a_challenged_card_follows_the_rate_once_it_is_approved(ledger: Ledger) -> None:
    gateway = gateway_over(ledger, success_rate=0.0)

    async def rule() -> str:
        try:
            answer = await gateway.charge(after_approval(paying(CHALLENGED)))
        except GatewayUnavailable as error:
            # One failure in five is drawn as this one.
            return error.outcome_rule
        assert isinstance(answer, Declined)
        return answer.outcome_rule

    assert await rule() == OutcomeRule.RATE


async def test_a_worker_that_was_paused_before_the_approval_hears_what_was_decided(ledger: Ledger) -> None:
    gateway, payment = gateway_over(ledger), paying(CHALLENGED)
    decided = await gateway.charge(after_approval(payment))
    assert await gateway.charge(payment) == decided


# -- the gateway settles later


@pytest.mark.parametrize(("scenario", "answered"), [(PENDING, Approved), (PENDING_THEN_DECLINED, Declined)])
@pytest.mark.parametrize("is_held", [False, True])
async def test_a_late_answer_is_pending_first_and_then_always_the_same(
    database: Database, clock: SetClock, ledger: Ledger, scenario: Scenario, answered: type, is_held: bool
) -> None:
    gateway, payment = gateway_over(ledger), paying(scenario, MethodType.PAYPAL, return_url=None)
    ask = gateway.authorize if is_held else gateway.charge
    pending = await ask(payment)
    assert isinstance(pending, Pending)
    assert CHARGE_SETTLES_MIN_S <= pending.settles_in_s <= CHARGE_SETTLES_MAX_S
    clock.moment += timedelta(seconds=pending.settles_in_s - 0.5)
    again = await ask(payment)
    assert isinstance(again, Pending)
    assert again.settles_in_s == pytest.approx(0.5, abs=0.002)
    assert await ledger_entries(database, payment.id) == ["pending"]
    clock.moment += timedelta(seconds=0.6)
    # Other settings change nothing of what was announced.
    settled = await ask(payment)
    assert isinstance(settled, answered)
    assert await ask(payment) == settled
    kind = "decline" if answered is Declined else "authorize" if is_held else "sale"
    assert await ledger_entries(database, payment.id) == ["pending", kind]


async def test_a_pending_charge_that_is_voided_is_never_settled(
    database: Database, clock: SetClock, ledger: Ledger
) -> None:
    gateway, payment = gateway_over(ledger), paying(PENDING, MethodType.PAYPAL, return_url=None)
    await gateway.charge(payment)
    voided = await gateway.void_or_fetch(payment)
    assert isinstance(voided, Declined)
    clock.moment += timedelta(seconds=CHARGE_SETTLES_MAX_S)
    assert await gateway.charge(payment) == voided
    assert await ledger_entries(database, payment.id) == ["pending", "decline"]


async def test_the_test_card_for_slow_refunds(database: Database, clock: SetClock, ledger: Ledger) -> None:
    gateway, payment = gateway_over(ledger), charged(**scenario_members(REFUND_SLOW))
    refund = refund_of(payment)
    assert await gateway.refund(payment, refund) == Pending("stripe_mock", REFUND_SETTLES_S)
    assert isinstance(await gateway.refund(payment, refund), Pending)
    clock.moment += timedelta(seconds=REFUND_SETTLES_S)
    paid = await gateway.refund(payment, refund)
    assert isinstance(paid, Approved)
    assert await gateway.refund(payment, refund) == paid
    assert await ledger_entries(database, payment.id) == ["pending", "refund"]


async def test_whoever_is_notified_learns_when_to_ask_but_not_what_was_decided(clock: SetClock, ledger: Ledger) -> None:
    answers: list[LateAnswer] = []
    gateway = gateway_over(ledger, notify_later=answers.append)
    payment = paying(PENDING, MethodType.PAYPAL, return_url=None)
    pending = await gateway.charge(payment)
    assert isinstance(pending, Pending)
    slow = charged(**scenario_members(REFUND_SLOW))
    refund = refund_of(slow)
    await gateway.refund(slow, refund)
    assert answers == [
        LateAnswer("paypal_mock", payment.id, None, pending.settles_in_s),
        LateAnswer("stripe_mock", slow.id, refund.id, REFUND_SETTLES_S),
    ]
    clock.moment += timedelta(seconds=CHARGE_SETTLES_MAX_S)
    await gateway.charge(payment)
    assert len(answers) == 2
