"""`make bench`: prints what the service does on this machine; compare figures of one run only, machines are noisy."""

import argparse
import os
import platform
from collections.abc import Callable
from datetime import datetime
from statistics import median, quantiles
from time import monotonic, sleep, time
from typing import Any

import httpx
import orjson
from rich.console import Console
from rich.table import Table

from bench.stack import Stack, bare_route, embedded, production, run_load, typical

console = Console(highlight=False)

CONNECTIONS = 100
LATENCY_RATE = 200
CATCH_UP_MAX_S = 120
GATEWAY_LOAD = 2000
PAIRS = 3
OFFERED = {"ours": 900, "typical": 250}  # intents per second: more than either settles, less than drowns it


def main() -> None:
    """Measure what the arguments ask for, everything by default."""
    measures = {
        "versus": versus,
        "accept": accept,
        "end-to-end": end_to_end,
        "latency": latency,
        "memory": memory,
        "embedded": embedded_default,
    }
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=f"of: {', '.join(measures)}; none = all")
    parser.add_argument("--seconds", type=int, default=20, choices=range(3, 121), metavar="3..120", help="of each load")
    chosen = parser.parse_args()
    if unknown := set(chosen.measures) - set(measures):
        parser.error(f"no such measure: {', '.join(sorted(unknown))}")
    console.print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"
    )
    table = Table("figure", "measured", "to reach", title="Payment service, everything on this machine")
    for name in chosen.measures or measures:
        console.print(f"measuring: {name} ...", style="dim")
        for row in measures[name](chosen.seconds):
            table.add_row(*row)
    console.print(table)


type Rows = list[tuple[str, str, str]]


def versus(seconds: int) -> Rows:
    """Ours, the usual way and the bare route, in turns, each turn on servers of its own."""
    accepted: dict[str, list[float]] = {"ours": [], "typical": [], "bare": []}
    slowest: dict[str, list[float]] = {"ours": [], "typical": [], "bare": []}
    told: dict[str, list[float]] = {"ours": [], "typical": []}
    subjects = {"ours": production, "typical": typical, "bare": bare_route}
    for turn in range(PAIRS):
        for name, start in subjects.items():
            console.print(f"  turn {turn + 1} of {PAIRS}: {name}", style="dim")
            with start() as stack:
                plan = _plan(stack, "accept", seconds)
                run_load(stack, {**plan, "run": f"warm{time():.0f}", "duration_s": 3})
                result = run_load(stack, plan)
                accepted[name].append(_accepted(result) / result["took_s"])
                slowest[name].append(_percentiles(result["latencies_s"])[99])
            if name in told:
                with start() as stack:
                    told[name].append(_flow(stack, seconds, OFFERED[name]))
    return [
        *((f"accepted/s, {name}", _spread(values), "") for name, values in accepted.items()),
        *(
            (f"  p99, ms, {name}", _spread(values), "ours < 200" if name == "ours" else "")
            for name, values in slowest.items()
        ),
        ("accepted/s, ours : typical", _ratio(accepted["ours"], accepted["typical"]), ">= 4"),
        ("accepted/s, ours : bare", _ratio(accepted["ours"], accepted["bare"]), ">= 0.25"),
        *(
            (f"settled and told/s, {name}, {OFFERED[name]}/s offered", _spread(values), "")
            for name, values in told.items()
        ),
        ("settled and told/s, ours : typical", _ratio(told["ours"], told["typical"]), ">= 6"),
    ]


def _flow(stack: Stack, seconds: int, rate: int) -> float:
    """Webhooks received per second while `rate` intents per second come in, after the first 3 s."""
    stack.register_receiver()
    started = time()
    result = run_load(stack, {**_plan(stack, "flow", seconds), "rate": rate})
    ended = time()
    sleep(1)
    notes = orjson.loads(httpx.get(f"{stack.receiver_url}/notes", trust_env=False, timeout=60).content)
    assert result["accepted"], result["statuses"]  # noqa: S101 - nothing was measured then
    return sum(1 for moment in notes.values() if started + 3 <= moment <= ended) / (ended - started - 3)


def _spread(values: list[float]) -> str:
    return f"{median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def _ratio(ours: list[float], theirs: list[float]) -> str:
    """Median and spread of the ratios of each turn: what both saw of the machine's noise cancels out."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def accept(seconds: int) -> Rows:
    """Intents accepted per second by clients that never pause."""
    with production() as stack:
        plan = _plan(stack, "accept", seconds)
        run_load(stack, {**plan, "run": "warm", "duration_s": 3})
        before = stack.cpu_s()
        result = run_load(stack, plan)
        shares = _shares(stack, before, result["took_s"])
        latencies = _percentiles(result["latencies_s"])
        return [
            ("accepted/s at 100 connections", f"{_accepted(result) / result['took_s']:.0f}", ">= 1,000"),
            ("  latency p50 / p99", f"{latencies[50]:.0f} / {latencies[99]:.0f} ms", "p99 < 250 ms"),
            ("  other answers", str({k: v for k, v in result["statuses"].items() if k != "202"}), "none"),
            ("  cores used", f"{shares}, load {result['cpu_share']:.2f}", ""),
            ("  API memory", f"{stack.memory_mib('api'):.0f} MiB", "< 150 MiB"),
        ]


def end_to_end(seconds: int) -> Rows:
    """Payments settled per second, with a webhook received for each, offered faster than they can be done."""
    with production() as stack:
        return _end_to_end(stack, seconds, rates=(600, 800, 1000), goal=500)


def embedded_default(seconds: int) -> Rows:
    """The same in one process with SQLite."""
    with embedded() as stack:
        return _end_to_end(stack, seconds, rates=(200, 300, 400), goal=200)


def latency(seconds: int) -> Rows:
    """What one payment waits for beside the gateway, at 100 intents per second."""
    with production() as stack:
        stack.register_receiver()
        plan = _plan(stack, "latency", seconds)
        result = run_load(stack, {**plan, "rate": LATENCY_RATE})
        received = _wait_for_webhooks(stack, len(result["accepted"]))
        claims, hooks = [], []
        with stack.client as client:
            for payment_id in list(result["accepted"])[:: max(1, len(result["accepted"]) // 500)]:
                history = client.get(f"/payments/{payment_id}/history").raise_for_status().json()["history"]
                claims.append(_seconds(history[1]["created_at"]) - _seconds(history[0]["created_at"]))
                if payment_id in received:
                    hooks.append(received[payment_id] - _seconds(history[-1]["created_at"]))
        to_claim, to_hook = _percentiles(claims), _percentiles(hooks)
        return [
            ("accept to PROCESSING at 100/s, p50 / p99", f"{to_claim[50]:.0f} / {to_claim[99]:.0f} ms", "p50 < 30 ms"),
            ("terminal to webhook received, p50 / p99", f"{to_hook[50]:.0f} / {to_hook[99]:.0f} ms", ""),
        ]


def memory(_seconds: int) -> Rows:
    """The worker's memory with 2,000 payments in the gateway."""
    with production(PAYMENT_PROCESSING_DELAY_MIN="15000", PAYMENT_PROCESSING_DELAY_MAX="15000", LEASE_S="60") as stack:
        before = stack.memory_mib("worker")
        result = run_load(stack, {**_plan(stack, "memory", 10), "rate": GATEWAY_LOAD / 8})
        most = max(_sampled(lambda: stack.memory_mib("worker"), for_s=5))
        return [
            (
                f"worker memory, {min(_accepted(result), GATEWAY_LOAD)} payments in the gateway (idle {before:.0f})",
                f"{most:.0f} MiB",
                "< 200 MiB",
            )
        ]


def _end_to_end(stack: Stack, seconds: int, *, rates: tuple[int, ...], goal: int) -> Rows:
    stack.register_receiver()
    rows: Rows = []
    for rate in rates:
        plan = _plan(stack, f"rate{rate}", seconds)
        before, started = stack.cpu_s(), time()
        result = run_load(stack, {**plan, "rate": rate})
        ended = time()
        received = _wait_for_webhooks(stack, len(result["accepted"]))
        shares = _shares(stack, before, time() - started)
        # A payment takes 1-3 s in the gateway, so what arrives in the window from 3 s on is the steady rate.
        window = [moment for moment in received.values() if started + 3 <= moment <= ended]
        behind = sum(1 for moment in received.values() if moment > ended + 3)
        rows += [
            (
                f"end to end at {rate}/s offered, a webhook each",
                f"{len(window) / (ended - started - 3):.0f}/s settled and told",
                f">= {goal}/s",
            ),
            (
                "  of accepted",
                f"{len(received)} of {len(result['accepted'])} told, {behind} more than 3 s after the load",
                "all",
            ),
            ("  accept p50 / p99", "{0[50]:.0f} / {0[99]:.0f} ms".format(_percentiles(result["latencies_s"])), ""),
            ("  other answers", str({k: v for k, v in result["statuses"].items() if k != "202"}), "none"),
            ("  cores used", shares, ""),
        ]
    return rows


def _plan(stack: Stack, run: str, seconds: int) -> dict[str, Any]:
    return {
        "run": f"{run}-{time():.0f}",
        "methods": stack.methods(),
        "connections": CONNECTIONS,
        "duration_s": seconds,
    }


def _wait_for_webhooks(stack: Stack, expected: int) -> dict[str, float]:
    """When each payment's webhook came (Unix time), after all have come or nothing more does."""
    deadline = monotonic() + CATCH_UP_MAX_S
    while monotonic() < deadline:
        if int(httpx.get(f"{stack.receiver_url}/count", trust_env=False).text) >= expected:
            break
        sleep(0.2)
    notes: dict[str, float] = orjson.loads(
        httpx.get(f"{stack.receiver_url}/notes", trust_env=False, timeout=60).content
    )
    return notes


def _shares(stack: Stack, before: dict[str, float], took_s: float) -> str:
    after = stack.cpu_s()
    return ", ".join(f"{name} {(after[name] - before[name]) / took_s:.2f}" for name in sorted(after))


def _accepted(result: dict[str, Any]) -> int:
    return int(result["statuses"].get("202", 0))


def _percentiles(values_s: list[float]) -> dict[int, float]:
    cuts = quantiles(values_s, n=100) if len(values_s) > 1 else [0.0] * 99
    return {percent: cuts[percent - 1] * 1000 for percent in (50, 95, 99)}


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _sampled(measure: Callable[[], float], *, for_s: float) -> list[float]:
    until = monotonic() + for_s
    values = [measure()]
    while monotonic() < until:
        sleep(0.25)
        values.append(measure())
    return values


if __name__ == "__main__":
    main()
