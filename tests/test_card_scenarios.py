"""Test cards: which of them succeed, fail or want 3-D Secure, and that there are no others."""

import pytest

from api.cards import CARD_SCENARIOS, Brand, InspectedCard, inspect_card
from shared.lifecycle import FailureCode
from shared.simulation.scenarios import (
    ALWAYS_APPROVED,
    CardChecks,
    RefundScenario,
    Scenario,
    read_scenario,
    scenario_members,
)
from tests.support.cards import SUCCESS_CARDS, cvc_for

CARDS_WITH_A_DIFFERENCE = {
    "4000000000005126": Scenario(None, refund=RefundScenario.DECLINED),
    "4000000000007726": Scenario(None, refund=RefundScenario.SLOW),
    "4000000000000101": Scenario(None, checks=CardChecks("Y", "N")),
    "4000000000000036": Scenario(None, checks=CardChecks("A", "M")),
    "4000000000000028": Scenario(None, checks=CardChecks("Z", "M")),
    "4000000000000010": Scenario(None, checks=CardChecks("N", "M")),
    "4000000000000044": Scenario(None, checks=CardChecks("U", "M")),
}
FAILING_CARDS = [
    ("4000000000000002", "card_declined"),
    ("4000000000000341", "card_declined"),
    ("4000000000009995", "insufficient_funds"),
    ("4000000000009987", "lost_card"),
    ("4000000000009979", "stolen_card"),
    ("4000000000000069", "expired_card"),
    ("4000000000000127", "incorrect_cvc"),
    ("4000000000000119", "processing_error"),
    ("4000000000006975", "card_velocity_exceeded"),
    ("4100000000000019", "fraud_suspected"),
    ("4000008400001280", "card_declined"),
]


CHALLENGED_CARDS = {
    "4000002500003155": Scenario(None, follows_rate=True, is_challenged=True),
    "4000000000003220": Scenario(None, follows_rate=True, is_challenged=True),
    "4000008400001629": Scenario(FailureCode.CARD_DECLINED, is_challenged=True),
    "4000008260003178": Scenario(FailureCode.INSUFFICIENT_FUNDS, is_challenged=True),
}


@pytest.mark.parametrize(("number", "brand"), SUCCESS_CARDS)
def test_a_success_card_names_no_failure(number: str, brand: str) -> None:
    always = ALWAYS_APPROVED if number == "4242424242424242" else None
    assert inspect_card(number, cvc_for(brand)) == InspectedCard(Brand(brand), number[-4:], always)


@pytest.mark.parametrize(("number", "failure"), FAILING_CARDS)
def test_a_failing_test_card_is_accepted_and_names_its_failure(number: str, failure: str) -> None:
    assert inspect_card(number, "123") == InspectedCard(Brand.VISA, number[-4:], Scenario(FailureCode(failure)))


@pytest.mark.parametrize(("number", "scenario"), CARDS_WITH_A_DIFFERENCE.items())
def test_a_card_that_differs_later_is_approved(number: str, scenario: Scenario) -> None:
    assert inspect_card(number, "123") == InspectedCard(Brand.VISA, number[-4:], scenario)
    assert scenario.failure is None
    assert not scenario.is_known_to_0_1
    assert read_scenario(scenario_members(scenario)) == scenario


@pytest.mark.parametrize(("number", "scenario"), CHALLENGED_CARDS.items())
def test_a_card_that_wants_3_d_secure_says_what_follows(number: str, scenario: Scenario) -> None:
    assert inspect_card(number, "123") == InspectedCard(Brand.VISA, number[-4:], scenario)
    assert not scenario.is_known_to_0_1
    assert read_scenario(scenario_members(scenario)) == scenario


# 3-D Secure without a challenge, and more good numbers: the rate decides.
@pytest.mark.parametrize(
    "number",
    [
        "4000000032200000", "4000000000003055", "2223003122003222", "5105105105105100", "371449635398431",
        "6011000990139424", "36227206271667",
    ],
)  # fmt: skip
def test_a_number_without_a_scenario_follows_the_rate(number: str) -> None:
    assert inspect_card(number, "1234" if number.startswith("37") else "123").scenario is None


def test_there_are_no_other_test_cards() -> None:
    assert set(CARD_SCENARIOS) == {
        "4242424242424242", *(number for number, _ in FAILING_CARDS), *CARDS_WITH_A_DIFFERENCE,
        *CHALLENGED_CARDS,
    }  # fmt: skip


def test_a_test_card_is_recognised_however_it_is_written() -> None:
    assert inspect_card("4000 0000-0000 0002", "123").scenario == Scenario(FailureCode.CARD_DECLINED)
