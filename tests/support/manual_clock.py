"""A clock for parts that take one: its time passes when the test says so."""

from dataclasses import dataclass


@dataclass(slots=True)
class ManualClock:
    """Seconds, from `now` on."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now
