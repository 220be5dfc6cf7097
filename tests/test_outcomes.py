"""How the simulated gateway decides. Drawn with a fixed seed: these figures are the same in every run."""

from collections import Counter
from dataclasses import replace
from uuid import UUID

import pytest

from api.cards import CARD_SCENARIOS
from api.paypal_addresses import ADDRESS_SCENARIOS
from shared.failure_reasons import FAILURE_REASONS
from shared.ids import new_id
from shared.lifecycle import FailureCode, MethodType, OutcomeRule
from shared.simulation.calls import Call
from shared.simulation.decisions import (
    AMOUNT_SCENARIOS,
    FAILURE_SHARES,
    OutcomeSettings,
    SimulatedOutcome,
    decide_outcome,
)
from shared.simulation.gateways import GatewayName, gateway_of
from shared.simulation.scenarios import Scenario
from shared.simulation.seeded_random import base62, fraction, upper_alphanumeric

DRAWS = 20_000
DEFAULTS = OutcomeSettings(seed="a seed", success_rate=0.95, uses_test_amounts=False)
ALL_APPROVED = replace(DEFAULTS, success_rate=1.0)
ALL_FAIL = replace(DEFAULTS, success_rate=0.0)
WITH_AMOUNTS = replace(DEFAULTS, uses_test_amounts=True)

REQUEST = Call(
    payment_id=UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
    seed_key="order-1",
    method_type=MethodType.CREDIT_CARD,
    scenario=None,
    amount=1585,
    currency="USD",
    gateway_try=0,
)


def requests(method_type: MethodType = MethodType.CREDIT_CARD, count: int = DRAWS) -> list[Call]:
    return [replace(REQUEST, seed_key=f"order-{number}", method_type=method_type) for number in range(count)]


@pytest.mark.parametrize("method_type", MethodType)
def test_the_success_rate_holds(method_type: MethodType) -> None:
    approved = sum(decide_outcome(request, DEFAULTS).failure is None for request in requests(method_type))
    assert approved / DRAWS == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize(
    ("method_type", "shares"),
    [
        (
            MethodType.CREDIT_CARD,
            {"card_declined": 0.6, "network_error": 0.2, "insufficient_funds": 0.1, "invalid_payment_method": 0.1},
        ),
        (
            MethodType.DEBIT_CARD,
            {"insufficient_funds": 0.6, "card_declined": 0.2, "network_error": 0.15, "invalid_payment_method": 0.05},
        ),
        (
            MethodType.PAYPAL,
            {
                "instrument_declined": 0.5,
                "payer_account_restricted": 0.25,
                "network_error": 0.2,
                "insufficient_funds": 0.05,
            },
        ),
    ],
)
def test_the_failures_of_a_method_have_their_shares(method_type: MethodType, shares: dict[str, float]) -> None:
    failures = Counter(str(decide_outcome(request, ALL_FAIL).failure) for request in requests(method_type))
    assert {failure: count / DRAWS for failure, count in failures.items()} == pytest.approx(shares, abs=0.015)


@pytest.mark.parametrize("method_type", MethodType)
def test_the_shares_of_every_method_add_up_to_all_failures(method_type: MethodType) -> None:
    assert sum(FAILURE_SHARES[method_type].values()) == 100


def test_a_rate_of_one_never_fails_and_a_rate_of_zero_always_does() -> None:
    assert all(
        decide_outcome(request, ALL_APPROVED) == SimulatedOutcome(None, OutcomeRule.RATE) for request in requests()
    )
    assert all(decide_outcome(request, ALL_FAIL).failure is not None for request in requests())


def test_an_outcome_is_the_same_in_any_order_and_for_any_payment_id() -> None:
    forwards = {request.seed_key: decide_outcome(request, DEFAULTS) for request in requests(count=2000)}
    again = [replace(request, payment_id=new_id()) for request in reversed(requests(count=2000))]
    assert {request.seed_key: decide_outcome(request, DEFAULTS) for request in again} == forwards


def test_an_outcome_is_decided_once_for_all_tries() -> None:
    for request in requests(count=500):
        assert {decide_outcome(replace(request, gateway_try=number), ALL_FAIL) for number in range(5)} == {
            decide_outcome(request, ALL_FAIL)
        }


def test_another_seed_draws_other_outcomes() -> None:
    other = replace(DEFAULTS, seed="another seed")
    assert [decide_outcome(request, other) for request in requests()] != [
        decide_outcome(request, DEFAULTS) for request in requests()
    ]


@pytest.mark.parametrize("scenario", CARD_SCENARIOS.values())
@pytest.mark.parametrize("method_type", [MethodType.CREDIT_CARD, MethodType.DEBIT_CARD])
def test_a_test_card_decides_before_amount_and_rate(method_type: MethodType, scenario: Scenario) -> None:
    request = replace(REQUEST, method_type=method_type, scenario=scenario, amount=1501, can_redirect=True)
    for rules in (WITH_AMOUNTS, ALL_APPROVED, ALL_FAIL):
        decided = decide_outcome(request, rules)
        if scenario.follows_rate:
            assert decided == decide_outcome(replace(request, scenario=None), rules)
        else:
            assert decided == SimulatedOutcome(scenario.failure, OutcomeRule.CARD)


@pytest.mark.parametrize("scenario", ADDRESS_SCENARIOS.values())
def test_a_test_address_decides_before_amount_and_rate(scenario: Scenario) -> None:
    request = replace(REQUEST, method_type=MethodType.PAYPAL, scenario=scenario, amount=1502)
    for rules in (WITH_AMOUNTS, ALL_APPROVED, ALL_FAIL):
        assert decide_outcome(request, rules) == SimulatedOutcome(scenario.failure, OutcomeRule.ADDRESS)


@pytest.mark.parametrize(
    ("amount", "failure"),
    [
        (1501, "insufficient_funds"),
        (99902, "card_declined"),
        (103, "network_error"),
        (204, "invalid_payment_method"),
    ],
)
@pytest.mark.parametrize("method_type", MethodType)
def test_a_test_amount_decides_before_the_rate(amount: int, failure: str, method_type: MethodType) -> None:
    request = replace(REQUEST, amount=amount, method_type=method_type)
    rules = replace(WITH_AMOUNTS, success_rate=1.0)
    assert decide_outcome(request, rules) == SimulatedOutcome(FailureCode(failure), OutcomeRule.AMOUNT)


def test_test_amounts_decide_nothing_unless_they_are_switched_on() -> None:
    for amount in range(100, 200):
        assert decide_outcome(replace(REQUEST, amount=amount), ALL_APPROVED) == SimulatedOutcome(None, OutcomeRule.RATE)


def test_only_four_of_a_hundred_amounts_decide() -> None:
    rules = replace(WITH_AMOUNTS, success_rate=1.0)
    decided = {
        amount % 100 for amount in range(100, 200) if decide_outcome(replace(REQUEST, amount=amount), rules).failure
    }
    assert decided == set(AMOUNT_SCENARIOS) == {1, 2, 3, 4}


def test_every_failure_code_has_one_sentence_for_people() -> None:
    assert set(FAILURE_REASONS) == set(FailureCode)
    assert len(set(FAILURE_REASONS.values())) == len(FailureCode)
    assert all(reason.endswith(".") and 10 < len(reason) <= 255 for reason in FAILURE_REASONS.values())


def test_the_failures_of_every_method_are_drawn() -> None:
    for method_type in MethodType:
        drawn = {decide_outcome(request, ALL_FAIL).failure for request in requests(method_type, 2000)}
        assert drawn == set(FAILURE_SHARES[method_type])


@pytest.mark.parametrize("method_type", [MethodType.CREDIT_CARD, MethodType.DEBIT_CARD])
def test_stripe_gets_seven_card_payments_for_each_of_square(method_type: MethodType) -> None:
    gateways = Counter(gateway_of(request, "a seed") for request in requests(method_type))
    assert set(gateways) == {GatewayName.STRIPE, GatewayName.SQUARE}
    assert gateways[GatewayName.STRIPE] / DRAWS == pytest.approx(7 / 8, abs=0.01)


def test_paypal_is_always_processed_by_paypal() -> None:
    assert {gateway_of(request, "a seed") for request in requests(MethodType.PAYPAL, 1000)} == {GatewayName.PAYPAL}


def test_fractions_are_evenly_spread_below_one() -> None:
    drawn = [fraction("a seed", number, "anything") for number in range(DRAWS)]
    assert all(0 <= value < 1 for value in drawn)
    tenths = Counter(int(value * 10) for value in drawn)
    assert all(count == pytest.approx(DRAWS / 10, rel=0.1) for count in tenths.values())
    assert len(tenths) == 10


def test_where_a_part_ends_makes_a_difference() -> None:
    drawn = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc")]
    assert len({fraction("a seed", *parts) for parts in drawn}) == len(drawn)


def test_seed_and_seed_key_and_purpose_and_try_each_change_the_draw() -> None:
    drawn = {
        fraction("a seed", "order-1", "delay", 0),
        fraction("another", "order-1", "delay", 0),
        fraction("a seed", "order-2", "delay", 0),
        fraction("a seed", "order-1", "outcome", 0),
        fraction("a seed", "order-1", "delay", 1),
        fraction("", "order-1", "delay", 0),
    }
    assert len(drawn) == 6


def test_a_draw_is_the_same_in_every_version_of_this_code() -> None:
    """Tests of our clients that set a seed rely on it; a change here belongs into the changelog."""
    assert fraction("a seed", "order-1", "outcome") == FIXED_FRACTION
    assert base62("a seed", "order-1", "transaction", length=24) == FIXED_BASE62


def test_drawn_text_has_its_length_and_alphabet() -> None:
    texts = [base62("a seed", number, length=24) for number in range(1000)]
    assert all(len(text) == 24 and text.isascii() and text.isalnum() for text in texts)
    assert len(set(texts)) == 1000
    assert len(set("".join(texts))) == 62
    upper = [upper_alphanumeric("a seed", number, length=17) for number in range(1000)]
    assert all(len(text) == 17 for text in upper)
    assert len(set("".join(upper))) == 36
    assert "".join(upper) == "".join(upper).upper()


FIXED_FRACTION = 0.4478063404623652
FIXED_BASE62 = "bXo3kxMO6J328Nu4AQy0y54f"
