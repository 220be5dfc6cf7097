"""The report of `payments verify`: a JSON document for the table, the API and a file, and lines for people."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cli.verify.breaches import PROMISES, BreachKind, Invariant
from cli.verify.kinds import KINDS
from cli.verify.scan import Found
from shared.database.clock import rfc3339
from shared.version import VERSION


def document(found: Found, *, started_at: datetime, finished_at: datetime) -> dict[str, Any]:
    """Return the report as a JSON object. The listed breaches are limited in number; their totals are complete."""
    return {
        "version": VERSION,
        "started_at": rfc3339(started_at),
        "finished_at": rfc3339(finished_at),
        "is_sound": found.is_sound,
        "payments_checked": found.payments,
        "idempotency_keys_checked": found.keys,
        "oldest_due_s": {table: round(age_s, 3) for table, age_s in found.oldest_due_s.items()},
        "oldest_unclaimed_s": {table: round(age_s, 3) for table, age_s in found.oldest_unclaimed_s.items()},
        "invariants": [
            {"name": invariant.value, "promise": promise, "breaches": _broken(found, invariant)}
            for invariant, promise in PROMISES.items()
        ],
        "breaches_total": found.total,
        "breaches": [
            {
                "kind": kind.value,
                "invariant": KINDS[kind].invariant.value,
                "words": KINDS[kind].words,
                "what_to_do": KINDS[kind].what_to_do,
                "total": total,
                "shown": found.shown[kind],
            }
            for kind, total in _in_order(found)
        ],
    }


def lines(found: Found, *, took_s: float) -> Iterator[tuple[str, str]]:
    """Iterate over the lines of the report for people, each with its style."""
    for invariant, promise in PROMISES.items():
        count = _broken(found, invariant)
        yield (f"✗ {promise} Breaches: {count:,}.", "red") if count else (f"✓ {promise}", "green")
    for kind, total in _in_order(found):
        yield "", ""
        yield f"{KINDS[kind].words} {total:,} found ({kind}).", "bold red"
        for ids in found.shown[kind]:
            yield "  " + " ".join(f"{name}={value}" for name, value in ids.items()), ""
        if total > len(found.shown[kind]):
            yield f"  and {total - len(found.shown[kind]):,} more. List more of them with --show.", ""
        yield f"  What to do: {KINDS[kind].what_to_do}", "yellow"
    yield "", ""
    due, unclaimed = map(_ages, (found.oldest_due_s, found.oldest_unclaimed_s))
    yield f"Checked {found.payments:,} payments and {found.keys:,} idempotency keys in {took_s:.1f} s.", ""
    yield f"The oldest open row has been due for: {due}. The oldest without a first claim has waited: {unclaimed}.", ""
    yield (
        ("Sound: there is no breach.", "bold green") if found.is_sound else (f"Breaches: {found.total:,}.", "bold red")
    )


def _ages(ages_s: dict[str, float]) -> str:
    return ", ".join(f"{table} {age_s:.1f} s" for table, age_s in ages_s.items())


def _broken(found: Found, invariant: Invariant) -> int:
    return sum(total for kind, total in found.totals.items() if KINDS[kind].invariant is invariant)


def _in_order(found: Found) -> list[tuple[BreachKind, int]]:
    return [(kind, found.totals[kind]) for kind in BreachKind if kind in found.totals]
