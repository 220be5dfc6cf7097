"""An explanation of one payment of each kind of ending: its words, its times, and the requests that end alike."""

import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.explain.explanation import Explanation
from shared.simulation.calls import Steering
from tests.support.endings import ENDINGS, clock, life, opened, paid
from tests.support.explained import ADMIN, Life, sentences_of, text_of

__all__ = ["clock", "life", "opened"]

CODE = re.compile(r"\b[a-z0-9]+(?:_[a-z0-9]+)+\b")

# The names of the gateways, and members and names of methods that are quoted as what they are.
NAMED = re.compile(r"\b(?:stripe|square|paypal)_mock\b|`\w+`|\bpm_test_\w+")


def check(explanation: Any) -> None:
    shown = explanation.to_json()
    assert shown["words"] == [section.to_json() for section in explanation.sections()]
    for sentence in sentences_of(explanation):
        assert re.fullmatch(r"(?:[A-Z0-9]|[a-z_.]+ \().*[.)]", sentence), sentence
        assert sentence.endswith(".")
        assert "None" not in sentence
        for code in CODE.findall(NAMED.sub("", sentence)):
            assert f"{code} (" in sentence, (code, sentence)
    times = [shown["time"], *(each["time"] for each in (*shown["refunds"], *shown["deliveries"]))]
    for time in times:
        assert time["total_ms"] == sum(part["ms"] for part in time["parts"])


@pytest.mark.parametrize("kind", ENDINGS)
async def test_each_ending_is_explained_in_sentences_and_its_times_add_up(life: Life, kind: str) -> None:
    happens, status, by = ENDINGS[kind]
    payment_id = await happens(life)
    check(await life.explained(payment_id, ADMIN))
    explanation = await life.explained(payment_id)
    check(explanation)
    shown = explanation.to_json()
    assert (shown["status"], shown["decision"]["by"]) == (status, by), text_of(explanation)
    history = shown["operations"][-1]["history"]
    first, last = shown["operations"][0]["history"][0]["at"], history[-1]["at"]
    assert first == "2026-01-02T03:04:05.678Z"
    if status != "AUTHORIZED":
        assert shown["time"]["total_ms"] == milliseconds(first, last)


def milliseconds(first: str, last: str) -> int:
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)) // timedelta(milliseconds=1)


async def test_what_still_waits_as_its_request_asked_says_so(life: Life) -> None:
    wanted = Steering(pending_ms=86_400_000)
    waiting = await life.accepts(steering=wanted)
    life.passes(40_000)
    assert parts_of(await life.explained(waiting)) == [("requested_wait", 40_000)]
    again = {"order_id": "o-2", "idempotency_key": "k-2"}
    authorized = await paid("approve", capture_method="manual", operation="authorize", **again)(life)
    await life.captures(authorized, 500, wanted)
    life.passes(86_400_500)
    assert parts_of(await life.explained(authorized))[-2:] == [("requested_wait", 86_400_000), ("queue_and_claim", 500)]


async def test_between_two_calls_no_claim_goes_on(life: Life) -> None:
    payment_id = await life.accepts(steering=Steering(outcomes=("network_error", "timeout_charged"), delay_ms=100))
    await life.works_once(payment_id)
    life.passes(300)
    explanation = await life.explained(payment_id)
    check(explanation)
    words = " ".join(text_of(explanation).split())
    assert "goes on" not in words
    assert "Call 1 to the gateway was made. The gateway could not be reached" in words
    assert parts_of(explanation)[-2:] == [("gateway", 100), ("retry_pause", 305)]


def parts_of(explanation: Explanation) -> list[tuple[str, int]]:
    return [(part["name"], part["ms"]) for part in explanation.to_json()["time"]["parts"]]
