"""The report of `payments verify` in lines for people."""

from collections.abc import Iterator

from shared.verify.breaches import PROMISES
from shared.verify.kinds import KINDS
from shared.verify.report import breaches_of, kinds_of
from shared.verify.scan import Found


def lines(found: Found, *, took_s: float) -> Iterator[tuple[str, str]]:
    """Iterate over the lines of the report for people, each with its style."""
    for invariant, promise in PROMISES.items():
        count = breaches_of(found, invariant)
        yield (f"✗ {promise} Breaches: {count:,}.", "red") if count else (f"✓ {promise}", "green")
    for kind, total in kinds_of(found):
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
