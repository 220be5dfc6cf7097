"""Steps that the measures share: offer a load, wait for the webhooks, and compute rates and the use of the cores."""

from collections import Counter
from time import monotonic, sleep, time
from typing import Any

import httpx
import orjson

from bench.figures import Found, percentiles_ms
from bench.stack import Stack, run_load

CONNECTIONS = 100
CATCH_UP_MAX_S = 120
# The longest delay of the gateway at default settings, in seconds. After it, payments end as fast as they arrive.
GATEWAY_MAX_S = 3

type Result = dict[str, Any]


def plan(stack: Stack, run: str, seconds: int, **changes: Any) -> dict[str, Any]:
    """Return a plan for `run_load` whose order ids are new, with the keys of `changes` set."""
    return {
        "run": f"{run}-{time():.0f}",
        "methods": stack.methods(),
        "connections": CONNECTIONS,
        "duration_s": seconds,
        **changes,
    }


def accepted(result: Result) -> int:
    """Return how many intents were accepted: with 202, or with 201 if the answer was held until the payment ended."""
    return sum(int(result["statuses"].get(status, 0)) for status in ("201", "202"))


def other_answers(result: Result) -> int:
    """Return how many intents got another answer, or none."""
    return int(sum(result["statuses"].values())) - accepted(result)


def flow(stack: Stack, seconds: int, rate: float) -> tuple[Result, dict[str, float], float, float]:
    """Offer `rate` intents per second for `seconds` seconds, and wait for the webhooks.

    Return the result of the load, the time at which the webhook of each payment was received, and the begin and the end
    of the load. All times are Unix times.
    """
    began = time()
    result = run_load(stack, plan(stack, "flow", seconds, rate=rate))
    ended = time()
    return result, wait_for_webhooks(stack, accepted(result)), began, ended


def delivered_per_s(received: dict[str, float], began: float, ended: float) -> float:
    """Return how many webhooks per second were received, from GATEWAY_MAX_S after the begin to the end of the load."""
    steady = began + GATEWAY_MAX_S
    return sum(1 for moment in received.values() if steady <= moment <= ended) / (ended - steady)


def by_second(moments: dict[str, float], began: float) -> list[tuple[float, float]]:
    """Return how many of the times are in each second after `began`, as points of a plot."""
    counts = Counter(int(moment - began) for moment in moments.values())
    return [(float(second), float(counts.get(second, 0))) for second in range(max(counts, default=0) + 1)]


def wait_for_webhooks(stack: Stack, expected: int) -> dict[str, float]:
    """Wait until `expected` webhooks were received, at most CATCH_UP_MAX_S seconds.

    Return the Unix time of the webhook of each payment.
    """
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
    """The number of cores that each process uses between the construction and `add_to`."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._before = stack.cpu_s()
        self._began = monotonic()

    def add_to(self, found: Found, *, load: float | None = None) -> None:
        """Add a figure for each process. `load` is the number of cores that the load generator used."""
        took_s, after = monotonic() - self._began, self._stack.cpu_s()
        for name in sorted(after):
            found.add(f"  cores used by {name}", (after[name] - self._before[name]) / took_s, digits=2)
        if load is not None:
            found.add("  cores used by the generator", load, digits=2)


def add_latencies(found: Found, what: str, values_s: list[float], **goals: Any) -> None:
    """Add figures for p50 and p99 of `values_s`, with the goals `p50` and `p99`."""
    cuts = percentiles_ms(values_s)
    for percent in (50, 99):
        found.add(f"{what}, p{percent}", cuts[percent], "ms", goal=goals.get(f"p{percent}"))
