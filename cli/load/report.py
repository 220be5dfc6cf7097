"""The results of a load: a page for people and a document for programs, with the same figures."""

import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.load.frame import STATUS_STYLES
from cli.load.payment_tally import PaymentTally, settled_per_s
from cli.load.progress import Progress, Sample
from cli.load.request_counts import Spread, spread
from shared.version import VERSION

# Seconds. No rate is computed over a shorter time.
SHORT_WINDOW_S = 1.0
EXIT_CLEAN, EXIT_BROKEN = 0, 1

type Document = dict[str, Any]


def exit_code(progress: Progress) -> int:
    """Return 1 if a promise was broken or no payment was accepted, in which case nothing was checked; else 0."""
    return EXIT_CLEAN if progress.verdict.is_clean and progress.payment_tally.known else EXIT_BROKEN


def settled_while_sending(progress: Progress, *, after_s: float | None = None) -> float | None:
    """Return how many payments per second ended while payments arrived; None if that time is too short.

    The count begins `after_s` seconds after the first payment, by default after the median duration of a payment.
    """
    between = progress.payment_tally.created_between()
    times = spread(progress.payment_tally.settle_times_ms())
    if between is None or times is None:
        return None
    begin, end = between[0] + (times.p50 / 1000 if after_s is None else after_s), between[1]
    if end - begin < SHORT_WINDOW_S:
        return None
    return settled_per_s(progress.payment_tally.ended_at, begin, end)


def settled_by_second(payment_tally: PaymentTally) -> list[int]:
    """Return how many payments ended in each second after the first acceptance, by the clock of the service."""
    between = payment_tally.created_between()
    if between is None:
        return []
    seconds = [int(moment - between[0]) for moment in payment_tally.ended_at]
    counts = [0] * (max(seconds, default=-1) + 1)
    for second in seconds:
        counts[max(0, second)] += 1
    return counts


def document(progress: Progress) -> Document:
    """Return all results, for `--json`."""
    request_counts, payment_tally, verdict = progress.request_counts, progress.payment_tally, progress.verdict
    plan = progress.plan
    return {
        "version": VERSION,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "target": {"url": progress.target.url, "kind": progress.target.words},
        "plan": {
            "rate_per_s": plan.rate,
            "duration_s": plan.duration_s,
            "shape": plan.shape,
            "mix": {method.value: weight for method, weight in plan.mix.items()},
            "captures": plan.captures,
            "refunds": plan.refunds,
            "seed": plan.seed,
        },
        "interrupted": progress.is_interrupted,
        "took_s": round(progress.took_s, 1),
        "requests": {
            "offered": request_counts.offered,
            "sent": request_counts.sent,
            "accepted": request_counts.accepted,
            "repeated": request_counts.repeated,
            "unanswered": request_counts.unanswered,
            "unanswered_and_found": payment_tally.found_after_all(),
            "refused": dict(request_counts.refused),
            "not_sent": dict(request_counts.not_sent),
        },
        "per_s": {
            "offered": _per_s(request_counts.offered, progress.sent_for_s),
            "accepted": _per_s(request_counts.accepted, progress.sent_for_s),
            "settled": settled_while_sending(progress),
        },
        "accepted_after_ms": _figures(request_counts.latency),
        "settled_after_ms": _figures(spread(payment_tally.settle_times_ms())),
        "outcomes": [
            {"status": status.value, "failure_code": code or None, "payments": count}
            for (status, code), count in payment_tally.ends.most_common()
        ],
        "captures": progress.later_tally.captures,
        "refunds": {status.value: count for status, count in progress.later_tally.refund_ends.items()},
        "captures_and_refunds_refused": dict(progress.later_tally.refused),
        "webhooks_received": progress.webhooks,
        "refund_webhooks_received": progress.refund_webhooks,
        "verdict": {
            "clean": verdict.is_clean,
            "compared": verdict.compared,
            "not_looked_at": verdict.not_looked_at,
            "broken": [asdict(broken) for broken in verdict.broken],
        },
        "seconds": [_second(sample) for sample in progress.samples],
        "settled_by_second": settled_by_second(payment_tally),
    }


def page(progress: Progress) -> RenderableType:
    """Return all results for people, without the lines of the checks."""
    request_counts, payment_tally, later = progress.request_counts, progress.payment_tally, progress.later_tally
    counts = _table("requests", "payments", "per second")
    for name, count, is_shown in (
        ("offered", request_counts.offered, True),
        ("accepted", request_counts.accepted, True),
        ("settled", payment_tally.settled, True),
        *((f"refused: {label}", count, True) for label, count in request_counts.refused.most_common()),
        *((f"not sent: {label}", count, True) for label, count in request_counts.not_sent.most_common()),
        ("unanswered, sent twice", request_counts.unanswered, request_counts.unanswered > 0),
        ("repeated with the same key", request_counts.repeated, request_counts.repeated > 0),
        ("captures accepted", later.captures, later.captures > 0),
        *((f"refunds: {status.value}", count, True) for status, count in later.refund_ends.most_common()),
        *((f"refused: {label}", count, True) for label, count in later.refused.most_common()),
        ("webhooks received", progress.webhooks or 0, progress.webhooks is not None),
        (
            "webhooks of refunds received",
            progress.refund_webhooks or 0,
            bool(later.payments and progress.refund_webhooks),
        ),
    ):
        rate = settled_while_sending(progress) if name == "settled" else _per_s(count, progress.sent_for_s)
        has_rate = name in {"offered", "accepted", "settled"} and rate is not None
        if is_shown:
            counts.add_row(name, Text(f"{count:,}", "bold"), f"{rate:,.1f}" if has_rate else "")
    outcomes = _table("outcome", "payments", "share")
    for (status, code), count in payment_tally.ends.most_common():
        label = Text.assemble((status.value, STATUS_STYLES.get(status, "")), f"  {code}" if code else "")
        outcomes.add_row(label, Text(f"{count:,}", "bold"), f"{count / payment_tally.settled:.1%}")
    times = _table("time in ms", "p50", "p95", "p99", "longest")
    for name, found in (
        ("from arrival to the 202", request_counts.latency),
        ("from acceptance to the end", spread(payment_tally.settle_times_ms())),
    ):
        cells = ("-",) * 4 if found is None else (f"{value:,.0f}" for value in _values(found))
        times.add_row(name, *cells)
    return Group(counts, outcomes, times) if payment_tally.ends else Group(counts, times)


def verdict_lines(progress: Progress) -> list[tuple[str, str]]:
    """Return lines about what was compared and what is wrong, each with its style."""
    verdict = progress.verdict
    if not progress.payment_tally.known:
        return [("No payment was accepted, so nothing could be checked.", "bold red")]
    if verdict.is_clean:
        as_far = ", as far as was looked" if verdict.not_looked_at else ""
        lines = [(f"No payment was lost, and none was charged twice{as_far}.", "bold green")]
    else:
        lines = [
            ("These promises were broken:", "bold red"),
            *((f"  {broken.text}", "red") for broken in verdict.broken),
        ]
    return [
        *lines,
        *((f"  Compared: {label}.", "dim") for label in verdict.compared),
        *((f"  Not looked at: {label}.", "yellow") for label in verdict.not_looked_at),
    ]


def _table(*headings: str) -> Table:
    table = Table(box=box.ROUNDED, border_style="dim", header_style="dim")
    table.add_column(headings[0], min_width=30)
    for heading in headings[1:]:
        table.add_column(heading, justify="right", min_width=8)
    return table


def _second(sample: Sample) -> Document:
    figures = sample.figures
    return {
        "at_s": sample.at_s,
        "offered": sample.second.offered,
        "accepted": sample.second.accepted,
        "refused": sample.second.refused,
        "not_sent": sample.second.not_sent,
        "accepted_after_ms": _figures(sample.latency),
        "queue_depth": figures.queue_depth if figures else None,
        "in_flight": figures.in_flight if figures else None,
        "webhook_backlog": figures.webhook_backlog if figures else None,
        "workers": [asdict(worker) for worker in figures.workers or ()] if figures else None,
        "webhooks_received": sample.webhooks,
    }


def _figures(found: Spread | None) -> dict[str, float] | None:
    return {name: round(value, 1) for name, value in asdict(found).items()} if found is not None else None


def _values(found: Spread) -> tuple[float, ...]:
    return found.p50, found.p95, found.p99, found.longest


def _per_s(count: int, duration_s: float) -> float | None:
    return round(count / duration_s, 1) if duration_s >= SHORT_WINDOW_S else None
