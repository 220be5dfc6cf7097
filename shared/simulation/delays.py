"""How long the simulated gateway takes, drawn for each try of an operation."""

from shared.simulation.calls import Call
from shared.simulation.decisions import Decision
from shared.simulation.rules import Pace
from shared.simulation.seeded_random import fraction

# How much longer a call takes whose pace is slow.
SLOW_FACTOR = 5
# Seconds until a charge or an authorization is settled that is settled late, drawn between the two.
CHARGE_SETTLES_MIN_S, CHARGE_SETTLES_MAX_S = 5.0, 15.0
# Seconds until a slow refund is settled.
REFUND_SETTLES_S = 10.0


class Delays:
    """Delays between `min_ms` and `max_ms`, evenly distributed; a slow call takes at most `slow_max_ms`."""

    def __init__(self, seed: str, *, min_ms: int, max_ms: int, slow_max_ms: int) -> None:
        self._seed = seed
        self._min_ms = min_ms
        self._max_ms = max_ms
        self._slow_max_ms = slow_max_ms

    def of_charge(self, call: Call, decision: Decision) -> tuple[float, float, float]:
        """Return the seconds before the first step, the second step and the answer: together the delay of this try."""
        first, second, whole = (
            fraction(self._seed, call.seed_key, purpose, call.gateway_try)
            for purpose in ("first step", "second step", "delay")
        )
        delay_s = self._delay_s(whole, decision)
        to_first_s = first * delay_s
        to_second_s = second * (delay_s - to_first_s)
        return to_first_s, to_second_s, delay_s - to_first_s - to_second_s

    def of_operation(self, operation: str, call: Call, decision: Decision | None = None) -> tuple[float, float]:
        """Return the seconds before the one step of an operation and before its answer."""
        step, whole = (
            fraction(self._seed, call.seed_key, operation, purpose, call.gateway_try)
            for purpose in ("first step", "delay")
        )
        delay_s = self._delay_s(whole, decision)
        return step * delay_s, (1 - step) * delay_s

    def _delay_s(self, drawn: float, decision: Decision | None) -> float:
        delay_ms = self._min_ms + drawn * (self._max_ms - self._min_ms)
        if decision is not None and decision.delay_ms is not None:
            return decision.delay_ms / 1000
        match decision.pace if decision else Pace.DRAWN:
            case Pace.AT_ONCE:
                delay_ms = 0
            case Pace.LONGEST:
                delay_ms = self._max_ms
            case Pace.SLOW:
                # Never shorter than it was drawn, however small the bound is.
                delay_ms = max(delay_ms, min(SLOW_FACTOR * delay_ms, self._slow_max_ms))
            case Pace.DRAWN:
                pass
        return delay_ms / 1000
