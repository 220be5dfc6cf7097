"""What every measure does with a stack: offer a load, wait for the webhooks, see who used the processor."""

from collections import Counter
from time import monotonic, sleep, time
from typing import Any

import httpx
import orjson

from bench.figures import Found, percentiles_ms
from bench.stack import Stack, run_load

CONNECTIONS = 100
CATCH_UP_MAX_S = 120
GATEWAY_MAX_S = 3  # a payment's longest stay in the gateway at default settings: then the flow is steady

type Result = dict[str, Any]


def plan(stack: Stack, run: str, seconds: int, **changes: Any) -> dict[str, Any]:
    """A load for `run_load`, under a name that was not there before."""
    return {
        "run": f"{run}-{time():.0f}",
        "methods": stack.methods(),
        "connections": CONNECTIONS,
        "duration_s": seconds,
        **changes,
    }


def accepted(result: Result) -> int:
    """How many intents were accepted: 202, or 201 where the answer was held until the end."""
    return sum(int(result["statuses"].get(status, 0)) for status in ("201", "202"))


def others(result: Result) -> int:
    """How many answers were anything else."""
    return int(sum(result["statuses"].values())) - accepted(result)


def flow(stack: Stack, seconds: int, rate: float) -> tuple[Result, dict[str, float], float, float]:
    """Offer `rate` intents per second; the load's result, when each payment's webhook came, begin and end."""
    began = time()
    result = run_load(stack, plan(stack, "flow", seconds, rate=rate))
    ended = time()
    return result, wait_for_webhooks(stack, accepted(result)), began, ended


def told_per_s(received: dict[str, float], began: float, ended: float) -> float:
    """Payments settled and told per second, from when the first ones can have been to the end of the load."""
    steady = began + GATEWAY_MAX_S
    return sum(1 for moment in received.values() if steady <= moment <= ended) / (ended - steady)


def by_second(moments: dict[str, float], began: float) -> list[tuple[float, float]]:
    """How many in each second after `began`, to draw."""
    counts = Counter(int(moment - began) for moment in moments.values())
    return [(float(second), float(counts.get(second, 0))) for second in range(max(counts, default=0) + 1)]


def wait_for_webhooks(stack: Stack, expected: int) -> dict[str, float]:
    """When each payment's webhook came (Unix time), after all have come or too long a time."""
    deadline = monotonic() + CATCH_UP_MAX_S
    while monotonic() < deadline:
        if int(httpx.get(f"{stack.receiver_url}/count", trust_env=False).text) >= expected:
            break
        sleep(0.2)
    notes: dict[str, float] = orjson.loads(
        httpx.get(f"{stack.receiver_url}/notes", trust_env=False, timeout=60).content
    )
    return notes


class Cores:
    """Who uses how much of the processor between the beginning and `add_to`."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._before = stack.cpu_s()
        self._began = monotonic()

    def add_to(self, found: Found, *, load: float | None = None) -> None:
        """A figure for each part; `load` is the generator's own share."""
        took_s, after = monotonic() - self._began, self._stack.cpu_s()
        for name in sorted(after):
            found.add(f"  cores used by {name}", (after[name] - self._before[name]) / took_s, digits=2)
        if load is not None:
            found.add("  cores used by the generator", load, digits=2)


def add_latencies(found: Found, what: str, values_s: list[float], **goals: Any) -> None:
    """Figures for p50 and p99 of `values_s`, with the goals `p50` and `p99`."""
    cuts = percentiles_ms(values_s)
    for percent in (50, 99):
        found.add(f"{what}, p{percent}", cuts[percent], "ms", goal=goals.get(f"p{percent}"))
