"""How long the simulated gateway takes, drawn for each try of an operation."""

from shared.gateway_calls import SimulatedRequest
from shared.simulation.seeded_random import fraction


class Delays:
    """Delays between `min_ms` and `max_ms`, evenly distributed."""

    def __init__(self, seed: str, *, min_ms: int, max_ms: int) -> None:
        self._seed = seed
        self._min_ms = min_ms
        self._max_ms = max_ms

    def of_charge(self, request: SimulatedRequest) -> tuple[float, float, float]:
        """Return the seconds before the first step, the second step and the answer: together the delay of this try."""
        first, second, whole = (
            fraction(self._seed, request.seed_key, purpose, request.gateway_try)
            for purpose in ("first step", "second step", "delay")
        )
        delay_s = self._delay_s(whole)
        to_first_s = first * delay_s
        to_second_s = second * (delay_s - to_first_s)
        return to_first_s, to_second_s, delay_s - to_first_s - to_second_s

    def of_operation(self, operation: str, key: str, gateway_try: int) -> tuple[float, float]:
        """Return the seconds before the one step of an operation and before its answer."""
        step, whole = (
            fraction(self._seed, key, operation, purpose, gateway_try) for purpose in ("first step", "delay")
        )
        delay_s = self._delay_s(whole)
        return step * delay_s, (1 - step) * delay_s

    def _delay_s(self, drawn: float) -> float:
        return (self._min_ms + drawn * (self._max_ms - self._min_ms)) / 1000
