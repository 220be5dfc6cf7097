"""Service time: the time that the service stores, shows and waits for. It runs at a speed of its own, and may be ahead.

Pure: what the row of `simulation_clock` says, and what follows from it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

# Any moment does: at speed 1 and without a jump, service time is real time.
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTime:
    """Service time as a function of real time: two straight lines that meet at an anchor, or leave a gap there.

    From the real moment `anchored_at` on, it is `service_at` and runs `speed` times as fast as real time. Until then it
    runs `speed_before` times as fast, towards `before_at`. An anchor may lie a little in the future, so that every
    process knows it before it counts. The clock is being advanced to `advances_to`; None = it runs by itself.
    """

    anchored_at: datetime = _EPOCH
    service_at: datetime = _EPOCH
    speed: float = 1.0
    before_at: datetime = _EPOCH
    speed_before: float = 1.0
    advances_to: datetime | None = None

    def at(self, real: datetime) -> datetime:
        """Return the service time at a moment of real time."""
        passed = real - self.anchored_at
        if passed < timedelta(0):
            return self.before_at + passed * self.speed_before
        return self.service_at + passed * self.speed

    def speed_at(self, real: datetime) -> float:
        """Return how many seconds of service time pass in a second of real time."""
        return self.speed_before if real < self.anchored_at else self.speed

    def real_s_until(self, moment: datetime, real: datetime) -> float:
        """Return the seconds of real time from `real` until a moment of service time; 0 or less if it has come."""
        if real >= self.anchored_at or moment <= self.before_at:
            return (moment - self.at(real)).total_seconds() / self.speed_at(real)
        to_anchor_s = (self.anchored_at - real).total_seconds()
        return to_anchor_s + max(0.0, (moment - self.service_at).total_seconds()) / self.speed

    @property
    def is_advancing(self) -> bool:
        """The clock is being advanced: it jumps from one due moment to the next."""
        return self.advances_to is not None


# Service time is real time.
REAL = ServiceTime()
