"""The life of a payment to scale: what it waited for and who worked on it, as bars of a chart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from api.dashboard.pages import duration
from shared.lifecycle import HistoryReason as Reason

TICKS = 4
# The whole life is shown to scale if the first part of it is at least so long; else the first part alone.
FIRST_PART_MIN = 0.02

# What begins with a move of the payment: in words, and its tone.
_WAITS_FOR_WORKER = ("Waits for a worker", "wait")
_AT_WORK = ("A worker asks the gateway", "work")
_HELD = ("Authorized: waits for a capture", "ask")
BEGINS: Mapping[str, tuple[str, str]] = {
    Reason.ACCEPTED: _WAITS_FOR_WORKER,
    Reason.CLAIMED: _AT_WORK,
    Reason.LEASE_EXPIRED: _AT_WORK,
    Reason.RETRIED: _AT_WORK,
    Reason.GATEWAY_TIMED_OUT: _AT_WORK,
    Reason.RELEASED: _AT_WORK,
    Reason.ORDER_UNREACHABLE: ("A worker asks the order service again", "work"),
    Reason.GATEWAY_SETTLED: _AT_WORK,
    Reason.AUTHORIZATION_EXPIRED: _AT_WORK,
    Reason.GATEWAY_PENDING: ("The gateway settles it later", "wait"),
    Reason.ACTION_REQUIRED: ("Waits for the customer", "ask"),
    Reason.ACTION_APPROVED: _WAITS_FOR_WORKER,
    Reason.AUTHORIZED: _HELD,
    Reason.CAPTURE_FAILED: _HELD,
    Reason.CAPTURE_REQUESTED: _WAITS_FOR_WORKER,
    Reason.VOID_REQUESTED: _WAITS_FOR_WORKER,
}
# What the move after it makes of it.
ENDS: Mapping[str, tuple[str, str]] = {
    Reason.LEASE_EXPIRED: ("The lease ran out: its worker died or was cut off", "bad"),
    Reason.RETRIED: ("A try without an answer, and the pause after it", "ask"),
    Reason.GATEWAY_TIMED_OUT: ("The answer was lost, and the pause after it", "bad"),
    Reason.ORDER_UNREACHABLE: ("The order service did not answer, and the pause after it", "ask"),
    Reason.RELEASED: ("A worker that was stopped released it", "ask"),
}


@dataclass(frozen=True, slots=True)
class Span:
    """What lasted from `begin` to `end`."""

    begin: datetime
    end: datetime
    text: str
    tone: str

    @property
    def lasted(self) -> str:
        """How long it lasted, in words."""
        return duration((self.end - self.begin).total_seconds())


@dataclass(frozen=True, slots=True)
class Lane:
    """What one line of the chart shows; `page` leads to more."""

    name: str
    spans: list[Span]
    page: str | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """A span in the chart: where it begins and how wide it is, in percent."""

    x: float
    width: float
    span: Span


@dataclass(frozen=True, slots=True)
class Timeline:
    """Lanes from `begin` to `end`. `is_cut` says that something happened later."""

    begin: datetime
    end: datetime
    lanes: list[Lane]
    is_cut: bool = False
    has_views: bool = False
    ticks: list[tuple[float, str]] = field(default_factory=list)

    def bars(self, lane: Lane) -> list[Bar]:
        """Return the bars of a lane."""
        length = (self.end - self.begin).total_seconds()

        def share(moment: datetime) -> float:
            return 100 * min(1.0, max(0.0, (moment - self.begin).total_seconds() / length))

        shown = [span for span in lane.spans if span.begin <= self.end]
        return [Bar(round(share(s.begin), 3), round(share(s.end) - share(s.begin), 3), s) for s in shown]


def timeline(
    payment: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    deliveries: Sequence[Mapping[str, Any]],
    refunds: Sequence[Mapping[str, Any]],
    *,
    now: datetime,
    is_whole: bool | None,
) -> Timeline:
    """Return the chart of a payment. `is_whole` asks for all of its life, or only for that until it was settled."""
    spans = _spans(history, now)
    lanes = [Lane("Payment", spans)]
    lanes += [_refund_lane(refund, now) for refund in reversed(refunds)]
    lanes += [_delivery_lane(delivery, now) for delivery in deliveries]
    begin = _moment(payment["created_at"])
    last = max([begin, *(span.end for lane in lanes for span in lane.spans)])
    first_part = max([begin, *(span.end for span in spans)])
    has_views = (first_part - begin) < FIRST_PART_MIN * (last - begin)
    shows_all = is_whole if is_whole is not None else not has_views
    end = max(last if shows_all else begin + (first_part - begin) * 1.1, begin + timedelta(milliseconds=1))
    length_s = (end - begin).total_seconds()
    ticks = [(100 * part / TICKS, duration(length_s * part / TICKS) if part else "0") for part in range(TICKS + 1)]
    return Timeline(begin, end, lanes, end < last, has_views, ticks)


def _spans(history: Sequence[Mapping[str, Any]], now: datetime) -> list[Span]:
    # The steps of refunds have lanes of their own.
    moves = [entry for entry in history if not entry["reason"].startswith("refund_")]
    spans = []
    for entry, following in zip(moves, [*moves[1:], None], strict=True):
        begins = BEGINS.get(entry["reason"])
        if begins is None:
            continue
        text, tone = ENDS.get(following["reason"], begins) if following and begins == _AT_WORK else begins
        worker = entry["metadata"].get("worker")
        text = f"{text} ({worker})" if worker else text
        spans.append(
            Span(_moment(entry["created_at"]), _moment(following["created_at"]) if following else now, text, tone)
        )
    return spans


def _refund_lane(refund: Mapping[str, Any], now: datetime) -> Lane:
    tones = {"COMPLETED": "good", "FAILED": "bad", "CANCELLED": "off"}
    end = _moment(refund["processed_at"]) if refund["processed_at"] else now
    if refund["status"] == "CANCELLED":
        end = _moment(refund["updated_at"])
    text = f"Refund {refund['status'].lower()}"
    return Lane("Refund", [Span(_moment(refund["created_at"]), end, text, tones.get(refund["status"], "work"))])


def _delivery_lane(delivery: Mapping[str, Any], now: datetime) -> Lane:
    receiver = delivery["endpoint_name"] or {"order": "order service"}.get(delivery["kind"], "callback URL")
    created = _moment(delivery["created_at"])
    ended = _moment(delivery["updated_at"])
    is_open = delivery["status"] in {"pending", "sending"}
    spans = [Span(created, now if is_open else ended, "Until it was delivered or given up", "room")]
    for attempt in delivery["attempts"]:
        begin = _moment(attempt["started_at"])
        word = attempt["status_code"] or attempt["error"] or "no answer"
        tone = "good" if attempt["error"] is None else "bad"
        text = f"Attempt {attempt['number']}: {word}"
        spans.append(Span(begin, begin + timedelta(milliseconds=attempt["duration_ms"]), text, tone))
    return Lane(f"{delivery['event_type']} → {receiver}", spans, f"/deliveries/{delivery['id']}")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
