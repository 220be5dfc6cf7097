"""The timeline of a payment on the dashboard: drawn to scale, whole or until it was settled."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.dashboard.timeline import BEGINS, Timeline, timeline
from shared.lifecycle import HistoryReason

pytest_plugins = ["tests.support.api_fixtures"]

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def entry(reason: HistoryReason, after_s: float) -> dict[str, Any]:
    moment = (BEGAN + timedelta(seconds=after_s)).isoformat()
    return {"reason": reason.value, "created_at": moment, "metadata": {}}


def drawn(history: list[dict[str, Any]], *, now_s: float = 100, **options: Any) -> Timeline:
    payment = {"created_at": history[0]["created_at"]}
    now = BEGAN + timedelta(seconds=now_s)
    return timeline(
        payment, history, options.pop("deliveries", []), [], now=now, is_whole=options.pop("is_whole", None)
    )


def test_a_life_is_drawn_to_scale() -> None:
    found = drawn(
        [
            entry(HistoryReason.ACCEPTED, 0),
            entry(HistoryReason.CLAIMED, 1),
            entry(HistoryReason.LEASE_EXPIRED, 6),
            entry(HistoryReason.GATEWAY_APPROVED, 10),
        ]
    )
    [lane] = found.lanes
    assert [(round(bar.x), round(bar.width)) for bar in found.bars(lane)] == [(0, 10), (10, 50), (60, 40)]
    assert [span.lasted for span in lane.spans] == ["1.00 s", "5.00 s", "4.00 s"]
    assert "lease ran out" in lane.spans[1].text
    assert not found.has_views


def test_what_goes_on_lasts_until_now() -> None:
    [lane] = drawn([entry(HistoryReason.ACCEPTED, 0)], now_s=7).lanes
    assert lane.spans[0].lasted == "7.00 s"


def test_a_long_life_can_be_seen_whole_or_until_the_payment_was_settled() -> None:
    history = [entry(HistoryReason.ACCEPTED, 0), entry(HistoryReason.GATEWAY_APPROVED, 2)]
    late = {
        "id": "d",
        "event_type": "payment.completed",
        "endpoint_name": "shop",
        "kind": "endpoint",
        "status": "exhausted",
        "created_at": history[1]["created_at"],
        "updated_at": (BEGAN + timedelta(hours=8)).isoformat(),
        "attempts": [],
    }
    first = drawn(history, deliveries=[late])
    assert first.is_cut
    assert (first.end - first.begin).total_seconds() == pytest.approx(2.2)
    whole = drawn(history, deliveries=[late], is_whole=True)
    assert not whole.is_cut
    assert whole.end == BEGAN + timedelta(hours=8)


def test_every_reason_begins_a_span_or_ends_the_payments_wait() -> None:
    ends = {
        HistoryReason.GATEWAY_APPROVED, HistoryReason.GATEWAY_DECLINED, HistoryReason.GATEWAY_UNREACHABLE,
        HistoryReason.CLAIMS_EXHAUSTED, HistoryReason.ORDER_REFUSED, HistoryReason.ORDER_CHECK_TIMED_OUT,
        HistoryReason.ACTION_DECLINED, HistoryReason.ACTION_EXPIRED, HistoryReason.CANCELLED, HistoryReason.CAPTURED,
        HistoryReason.VOIDED, HistoryReason.REFUND_REQUESTED, HistoryReason.REFUND_COMPLETED,
        HistoryReason.REFUND_FAILED, HistoryReason.REFUND_CANCELLED,
    }  # fmt: skip
    assert set(BEGINS) | ends == set(HistoryReason)
    assert not set(BEGINS) & ends
