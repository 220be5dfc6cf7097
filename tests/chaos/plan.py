"""The plan: which fault comes when, to whom and for how long. The seed alone decides it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

GAP_S = (0.4, 2.0)
LASTS_S = (0.3, 3.0)


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault: begins `at_s` after the first intent."""

    at_s: float
    fault: str
    # Modulo the number of those it can meet.
    victim: int
    lasts_s: float


def planned_faults(seed: str, faults: Sequence[str], *, seconds: float) -> Iterator[Planned]:
    """Faults for `seconds`, each kind once before any comes again."""
    random = Random(seed)  # noqa: S311 - repeatable, not secret
    at_s, bag = random.uniform(*GAP_S), list[str]()
    while at_s < seconds:
        bag = bag or random.sample(faults, len(faults))
        yield Planned(at_s, bag.pop(), random.randrange(60), random.uniform(*LASTS_S))
        at_s += random.uniform(*GAP_S)
