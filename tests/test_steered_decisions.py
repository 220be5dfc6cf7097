"""What the steering of a request makes of each call: pure decisions."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from shared.ids import new_id
from shared.lifecycle import CaptureFailureCode, FailureCode, MethodType, OutcomeRule
from shared.refund_lifecycle import RefundFailureCode
from shared.simulation.calls import (
    FAILURES,
    NOT_STEERED,
    Call,
    CallOperation,
    CallOutcome,
    Steering,
    outcomes_of,
    read_steering,
)
from shared.simulation.decisions import Decision, OutcomeSettings, decide
from shared.simulation.rules import Fired, Pace
from shared.simulation.scenarios import CHALLENGED, PENDING, REFUND_DECLINED, Scenario

NO_PAYMENT_FAILS = OutcomeSettings(seed="a seed", success_rate=1.0, uses_test_amounts=True)
ALL_FAIL = OutcomeSettings(seed="a seed", success_rate=0.0, uses_test_amounts=True)
RULE_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def call(*outcomes: str, number: int = 1, **changes: Any) -> Call:
    given = {
        "payment_id": new_id(),
        "seed_key": "order-1",
        "method_type": MethodType.CREDIT_CARD,
        "scenario": None,
        "amount": 1501,
        "currency": "USD",
        "steering": Steering(outcomes=outcomes),
    }
    return Call(number=number, **{**given, **changes})


def decided(*outcomes: str, **changes: Any) -> Decision:
    return replace(decide(call(*outcomes, **changes), NO_PAYMENT_FAILS), remark=None)


def test_every_outcome_of_an_operation_has_one_meaning() -> None:
    for operation in CallOperation:
        words = outcomes_of(operation)
        assert len(set(words)) == len(words)
        assert set(words) == {*CallOutcome, *FAILURES[operation]}
        for word in words:
            decision = decided(word, operation=operation, can_redirect=False)
            assert decision.rule == OutcomeRule.REQUEST
            assert decision.loses_answer == word.startswith("timeout_")
            assert decision.settles_late == word.startswith("pending")
            assert decision.is_unreachable == (word in {"network_error", "timeout_not_charged"})
            assert (decision.failure == word) == (word in FAILURES[operation] or word == "network_error")


def test_failures_are_those_of_the_operation() -> None:
    of_charges = set(FAILURES[CallOperation.CHARGE])
    assert of_charges == {
        code for code in FailureCode if code != FailureCode.NETWORK_ERROR and not code.startswith("order_")
    }
    assert FAILURES[CallOperation.CAPTURE] == (CaptureFailureCode.CAPTURE_DECLINED,)
    assert FAILURES[CallOperation.REFUND] == (RefundFailureCode.REFUND_DECLINED,)


def test_each_call_takes_the_next_outcome_and_the_last_one_repeats() -> None:
    outcomes = ("network_error", "lost_card", "approve")
    failures = [decided(*outcomes, number=number).failure for number in range(1, 6)]
    assert failures == [FailureCode.NETWORK_ERROR, FailureCode.LOST_CARD, None, None, None]


@pytest.mark.parametrize("scenario", [Scenario(FailureCode.STOLEN_CARD), CHALLENGED, PENDING, REFUND_DECLINED])
@pytest.mark.parametrize("operation", CallOperation)
def test_the_request_wins_over_rule_test_value_amount_and_rate(scenario: Scenario, operation: CallOperation) -> None:
    fired = Fired(rule_id=RULE_ID, name="outage", outcomes=("network_error",))
    steered = call("approve", scenario=scenario, operation=operation, can_redirect=True)
    for rule in (None, fired):
        decision = decide(steered, ALL_FAIL, rule)
        assert (decision.failure, decision.rule) == (None, OutcomeRule.REQUEST)
        assert not decision.requires_action
        assert not decision.settles_late


def test_a_rule_wins_over_test_value_amount_and_rate() -> None:
    fired = Fired(rule_id=RULE_ID, name="outage", outcomes=("lost_card",), pace=Pace.AT_ONCE)
    decision = decide(call(scenario=Scenario(None)), NO_PAYMENT_FAILS, fired)
    assert (decision.failure, decision.rule, decision.pace) == ("lost_card", f"rule:{RULE_ID}", Pace.AT_ONCE)
    assert decision.remark == {
        "operation": "charge",
        "call": 1,
        "by": f"rule:{RULE_ID}",
        "name": "outage",
        "outcome": "lost_card",
        "delay_ms": None,
        "pace": "at_once",
    }


def test_a_rule_that_changes_the_delay_only_leaves_the_outcome_to_the_others() -> None:
    fired = Fired(rule_id=RULE_ID, name="slow", pace=Pace.SLOW)
    decision = decide(call(amount=1502), NO_PAYMENT_FAILS, fired)
    assert (decision.failure, decision.rule) == (FailureCode.CARD_DECLINED, OutcomeRule.AMOUNT)
    assert decision.remark is not None
    assert (decision.remark["by"], decision.remark["name"], decision.remark["outcome"]) == (
        f"rule:{RULE_ID}", "slow", None,
    )  # fmt: skip


def test_a_request_that_names_a_delay_only_leaves_the_outcome_to_the_others() -> None:
    decision = decide(call(amount=1502, steering=Steering(delay_ms=7)), NO_PAYMENT_FAILS)
    assert (decision.failure, decision.rule, decision.delay_ms) == (
        FailureCode.CARD_DECLINED, OutcomeRule.AMOUNT, 7,
    )  # fmt: skip
    assert decision.remark is not None
    assert (decision.remark["by"], decision.remark["outcome"]) == (OutcomeRule.REQUEST, None)


def test_without_steering_nothing_is_remarked() -> None:
    assert decide(call(), NO_PAYMENT_FAILS).remark is None


@pytest.mark.parametrize(
    ("outcomes", "number", "settled_as"),
    [
        (("pending",), 1, None),
        (("pending", "approve"), 1, None),
        (("pending", "lost_card"), 1, FailureCode.LOST_CARD),
        (("network_error", "pending_lost", "lost_card"), 2, FailureCode.LOST_CARD),
        (("pending", "timeout_charged"), 1, None),
        (("pending", "network_error", "lost_card"), 1, None),
    ],
)
def test_what_is_pending_is_settled_as_the_failure_that_comes_next(
    outcomes: tuple[str, ...], number: int, settled_as: FailureCode | None
) -> None:
    decision = decided(*outcomes, number=number)
    assert (decision.settles_late, decision.failure) == (True, settled_as)
    assert decision.notifies == (outcomes[number - 1] == "pending")


def test_a_customer_is_asked_where_that_can_be_and_the_rest_counts_afterwards() -> None:
    outcomes = ("network_error", "authentication_required", "lost_card")
    asks = {"can_redirect": True, "number": 2}
    assert decided(*outcomes, **asks).requires_action
    assert decided(*outcomes, number=2).failure == FailureCode.AUTHENTICATION_REQUIRED
    approved = decided(*outcomes, **asks, is_approved=True)
    assert (approved.requires_action, approved.failure) == (False, FailureCode.LOST_CARD)
    assert decided("authentication_required", **asks, is_approved=True).failure is None


def test_a_paypal_account_is_asked_before_the_outcomes_count() -> None:
    account: dict[str, Any] = {"method_type": MethodType.PAYPAL, "can_redirect": True}
    assert decided("lost_card", **account).requires_action
    assert decided("lost_card", **account, is_approved=True).failure == FailureCode.LOST_CARD
    # What does not reach PayPal does not ask the customer either.
    assert not decided("network_error", **account).requires_action
    # Captures and refunds ask nobody.
    for operation in (CallOperation.CAPTURE, CallOperation.REFUND):
        assert not decided("approve", **account, operation=operation).requires_action


def test_what_a_column_keeps_is_read_again() -> None:
    steering = Steering(outcomes=("approve",), delay_ms=0, pending_ms=5)
    assert read_steering(steering.stored) == steering
    assert NOT_STEERED.stored is None
    assert read_steering(None) == NOT_STEERED
