"""The load plans captures and refunds, and finds what does not agree in them."""

from collections import Counter
from typing import Any

import pytest

from cli.load.checks import LoadVerdict, tells_one_end
from cli.load.later_checks import judge_captures_and_refunds
from cli.load.later_steps import capture_amount, refund_amounts
from cli.load.later_tally import KnownRefund, LaterPayment, LaterTally
from cli.load.payment_tally import PaymentTally
from cli.load.plan import Intent, RefundPlan, Refused, refuse_absurd
from shared.lifecycle import MethodType, PaymentStatus
from shared.refund_lifecycle import RefundStatus
from tests.support.loads import a_plan, shown

# -- the plan


def test_captures_and_refunds_change_nothing_else_of_a_load() -> None:
    plain, later = list(a_plan().intents()), list(a_plan(captures=0.5, refunds=0.5).intents())
    assert [(one.at_s, one.method, one.amount) for one in plain] == [
        (one.at_s, one.method, one.amount) for one in later
    ]
    assert not any(one.is_captured or one.refund for one in plain)
    assert list(a_plan(captures=0.5, refunds=0.5).intents()) == later


def test_the_shares_are_about_as_asked_for_and_a_debit_card_is_never_captured_later() -> None:
    intents = list(a_plan(rate=100, captures=0.5, refunds=0.3).intents())
    credit = [one for one in intents if one.method is MethodType.CREDIT_CARD]
    assert 0.4 < sum(one.is_captured for one in credit) / len(credit) < 0.6
    assert not any(one.is_captured for one in intents if one.method is MethodType.DEBIT_CARD)
    refunded = Counter(one.refund for one in intents if one.refund)
    assert 0.25 < refunded.total() / len(intents) < 0.35
    assert set(refunded) == set(RefundPlan)


def test_all_is_a_share_too() -> None:
    intents = list(a_plan(captures=1, refunds=1).intents())
    assert all(one.refund for one in intents)
    assert {one.method for one in intents if not one.is_captured} == {MethodType.DEBIT_CARD}


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["captures", "refunds"])
def test_a_share_that_is_none_is_refused(name: str, share: float) -> None:
    with pytest.raises(Refused, match=f"--{name} .*between 0 and 1"):
        refuse_absurd(a_plan(**{name: share}))


def test_the_amounts_that_are_asked_for() -> None:
    assert [capture_amount(an_intent(number), 1000) for number in (1, 2)] == [1000, 750]
    assert refund_amounts(RefundPlan.WHOLE, 1000) == [1000]
    assert sum(refund_amounts(RefundPlan.PART, 1000)) < 1000
    first, second = refund_amounts(RefundPlan.TOO_MUCH, 1000)
    assert max(first, second) <= 1000 < first + second


def an_intent(number: int) -> Intent:
    return Intent(number, 0.0, MethodType.CREDIT_CARD, 1000)


# -- the tally and the histories


def test_refunds_move_a_payment_that_has_ended_and_nothing_else_does() -> None:
    tally = PaymentTally("7")
    tally.see(shown("70", "COMPLETED"))
    refunded = shown("70", "COMPLETED") | {"status": "PARTIALLY_REFUNDED", "sequence": 5}
    tally.see(refunded)
    tally.see(shown("70", "COMPLETED"))  # an older answer that comes late
    assert tally.known["p-70"].status is PaymentStatus.PARTIALLY_REFUNDED
    assert tally.ends == {(PaymentStatus.PARTIALLY_REFUNDED, ""): 1}
    assert (tally.settled, tally.changed) == (1, set())
    tally.see(refunded | {"status": "CANCELLED", "sequence": 6})
    assert tally.changed == {"p-70"}


def test_after_the_end_only_refunds_may_come_in_a_history() -> None:
    moves: list[tuple[str | None, str, str]] = [
        (None, "PENDING", "accepted"),
        ("PENDING", "PROCESSING", "claimed"),
        ("PROCESSING", "COMPLETED", "gateway_approved"),
        ("COMPLETED", "COMPLETED", "refund_requested"),
        ("COMPLETED", "REFUNDED", "refund_completed"),
    ]
    history = [
        {"sequence": number, "previous_status": previous, "new_status": status, "reason": reason}
        for number, (previous, status, reason) in enumerate(moves, start=1)
    ]
    assert tells_one_end(history, 5)
    assert not tells_one_end([*history[:4], history[4] | {"reason": "gateway_approved"}], 5)


# -- the verdict


def a_refunded_payment(**changes: Any) -> LaterPayment:
    """Return a payment of 1000 of which 800 were captured and 300 refunded; `changes` are of what the API shows."""
    payment = LaterPayment("p1", capture=800, is_finished=True)
    payment.refunds = {"r1": KnownRefund(300, RefundStatus.COMPLETED), "r2": KnownRefund(100, RefundStatus.FAILED)}
    amounts = {"amount_captured": 800, "amount_refunded": 300, "amount_refundable": 500}
    payment.shown = {"status": "PARTIALLY_REFUNDED", "last_capture_error": None} | amounts | changes
    return payment


def verdict_about(payment: LaterPayment) -> LoadVerdict:
    verdict = LoadVerdict()
    judge_captures_and_refunds(LaterTally([payment]), verdict)
    return verdict


def test_what_agrees_is_named_as_compared() -> None:
    verdict = verdict_about(a_refunded_payment())
    assert verdict.is_clean
    assert not verdict.not_looked_at
    assert verdict.compared[0].startswith("1 captures and 2 refunds")


def test_a_run_without_captures_and_refunds_says_nothing_of_them() -> None:
    verdict = LoadVerdict()
    judge_captures_and_refunds(LaterTally(), verdict)
    assert (verdict.compared, verdict.broken) == ([], [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"amount_captured": 1000, "amount_refundable": 700}, "A capture was accepted"),
        ({"amount_refunded": 400}, "The amounts of a payment"),
        ({"amount_refundable": 501}, "The amounts of a payment"),
        ({"status": "COMPLETED"}, "The amounts of a payment"),
        ({"status": "REFUNDED"}, "The amounts of a payment"),
    ],
)
def test_each_disagreement_is_found(changes: dict[str, Any], words: str) -> None:
    verdict = verdict_about(a_refunded_payment(**changes))
    assert [broken.words.startswith(words) for broken in verdict.broken] == [True]
    assert verdict.broken[0].examples == ("p1",)


def test_a_refund_above_the_capture_is_found() -> None:
    payment = a_refunded_payment(amount_refunded=800, amount_refundable=0, status="REFUNDED")
    payment.refunds = {f"r{number}": KnownRefund(600, RefundStatus.COMPLETED) for number in range(2)}
    assert "More was refunded than was captured." in [broken.words for broken in verdict_about(payment).broken]


def test_a_refund_that_never_ends_is_found() -> None:
    payment = a_refunded_payment()
    payment.refunds["r3"], payment.is_finished = KnownRefund(5, RefundStatus.PROCESSING), False
    verdict = verdict_about(payment)
    assert [broken.words for broken in verdict.broken] == ["A refund was accepted and never ended."]
    assert verdict.not_looked_at == ["1 payments whose captures or refunds were given up before they ended"]


def test_a_capture_that_failed_and_says_so_is_no_lost_one() -> None:
    payment = LaterPayment("p1", capture=800, is_finished=True)
    payment.shown = {"status": "CANCELLED", "amount_captured": 0, "last_capture_error": {"code": "network_error"}}
    assert verdict_about(payment).is_clean
    payment.shown["last_capture_error"] = None
    assert [broken.words for broken in verdict_about(payment).broken] == [
        "A capture was accepted, and the payment does not say so."
    ]
