"""The report of a verification as a JSON object: for the table, the API and a file."""

from datetime import datetime
from typing import Any

from shared.database.clock import rfc3339
from shared.verify.breaches import PROMISES, BreachKind, Invariant
from shared.verify.kinds import KINDS
from shared.verify.scan import Found
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
            {"name": invariant.value, "promise": promise, "breaches": breaches_of(found, invariant)}
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
            for kind, total in kinds_of(found)
        ],
    }


def breaches_of(found: Found, invariant: Invariant) -> int:
    """Return how often the invariant is broken."""
    return sum(total for kind, total in found.totals.items() if KINDS[kind].invariant is invariant)


def kinds_of(found: Found) -> list[tuple[BreachKind, int]]:
    """Return the kinds of breaches that were found, each with its number, in the order in which they are listed."""
    return [(kind, found.totals[kind]) for kind in BreachKind if kind in found.totals]
