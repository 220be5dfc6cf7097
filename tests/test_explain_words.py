"""The closed sets of explanations: every word of the service is explained, and every moment is of some part."""

from datetime import UTC, datetime

import pytest

from shared.delivery_lifecycle import DeliveryStatus
from shared.event_types import EventType
from shared.explain.draws import Draw, Purpose
from shared.explain.operations import CLAIMS
from shared.explain.timeline import WORDS, PartName, Timeline
from shared.explain.words import (
    DELIVERY_STATUSES,
    EVENTS,
    LEDGER,
    OPERATIONS,
    OUTCOMES,
    PACES,
    PAYMENT_STATUSES,
    REASONS,
    REFUND_STATUSES,
    duration,
    explained,
    failed_with,
)
from shared.lifecycle import CaptureFailureCode, FailureCode, HistoryReason, PaymentOperation, PaymentStatus
from shared.refund_lifecycle import RefundFailureCode, RefundHistoryReason, RefundStatus
from shared.simulation.calls import CallOperation, CallOutcome
from shared.simulation.ledger_entries import EntryKind
from shared.simulation.rules import Pace
from tests.support.sentences import check_sentences

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_every_word_has_its_meaning_and_nothing_else_has_one() -> None:
    for words, known in (
        (REASONS, {*HistoryReason, *RefundHistoryReason}),
        (PAYMENT_STATUSES, set(PaymentStatus)),
        (REFUND_STATUSES, set(RefundStatus)),
        (DELIVERY_STATUSES, set(DeliveryStatus)),
        (EVENTS, set(EventType)),
        (LEDGER, set(EntryKind)),
        (OUTCOMES, set(CallOutcome)),
        (PACES, set(Pace)),
        (WORDS, set(PartName)),
        (OPERATIONS, {*PaymentOperation, *CallOperation}),
    ):
        assert set(words) == known
    for sentence in REASONS.values():
        check_sentences(sentence)


def test_every_failure_code_is_explained() -> None:
    for code in (*FailureCode, *CaptureFailureCode, *RefundFailureCode):
        assert "older version" not in failed_with(code) + explained(code)
    assert failed_with("card_declined") == "card_declined (the issuer declined the card without giving a reason)"
    assert failed_with("of_1999").endswith("(an older version knew it)")


def test_claims_are_the_reasons_whose_words_say_that_a_worker_took_it_up() -> None:
    assert {reason for reason, words in REASONS.items() if words.startswith("A worker took it up")} == CLAIMS


@pytest.mark.parametrize(
    ("value", "threshold", "shown"),
    [
        (0.97319, 0.95, 0.9731),
        (0.94999999, 0.95, 0.9499),
        (0.950049, 0.95004, 0.95004),
        (0.9500401, 0.95004, 0.95004),
        (0.12345678, None, 0.1234),
    ],
)
def test_a_number_is_cut_and_stays_on_its_side_of_the_threshold(
    value: float, threshold: float | None, shown: float
) -> None:
    assert Draw(purpose=Purpose.OUTCOME, value=value, threshold=threshold, words="").to_json()["value"] == shown
    assert threshold is None or (shown < threshold) == (value < threshold)


def test_parts_follow_each_other_and_moments_of_the_past_add_nothing() -> None:
    timeline = Timeline(NOW)
    timeline.add(PartName.QUEUE_AND_CLAIM, NOW.replace(microsecond=20_000))
    timeline.add(PartName.GATEWAY, NOW, number=1, operation="charge")
    timeline.add(PartName.GATEWAY, NOW.replace(second=7), ms_max=1000, number=1, operation="charge")
    timeline.add(PartName.RECORD, NOW.replace(second=7))
    assert [(part.name, part.ms) for part in timeline.parts] == [
        ("queue_and_claim", 20), ("gateway", 1000), ("record", 980),
    ]  # fmt: skip
    assert timeline.total_ms == 2000


def test_long_times_are_in_a_larger_unit_too() -> None:
    shown = [duration(ms) for ms in (0, 59_999, 90_000, 5_400_000, 604_800_000)]
    assert shown == [
        "0 ms", "59,999 ms", "90,000 ms (1.5 minutes)", "5,400,000 ms (1.5 hours)", "604,800,000 ms (7.0 days)",
    ]  # fmt: skip
