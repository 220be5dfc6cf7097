"""Measures of throughput: sustained, on the embedded default, with a full database, and under overload."""

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

from bench import million
from bench.figures import Figure, Found, at_least, below, percentiles_ms
from bench.flows import (
    Cores,
    accepted,
    add_latencies,
    by_second,
    delivered_per_s,
    flow,
    other_answers,
    plan,
    wait_for_webhooks,
)
from bench.plans import hot_path_plans
from bench.progress import print_step
from bench.stack import Stack, embedded, production, run_load
from cli.load.plot import BLUE, GREEN, ORANGE, Line, Plot

SUSTAINED_RATE, SUSTAINED_S = 750, 60
EMBEDDED_RATE = 400
# Seconds after the end of the load. A webhook that comes later had to wait for more than the gateway and its retries.
BEHIND_S = 5.0
OVERLOAD_CONNECTIONS = 2000
OVERLOAD_S = 30
RECOVERS_S = 10
FLOW_RATE = 600
# A scan of `webhook_endpoints` is allowed: PostgreSQL reads a table of a few rows on one page without an index.
SCAN = re.compile(r"Seq Scan on (?!webhook_endpoints\b)")
READS, READS_PER_S = 500, 50


def end_to_end(_seconds: int) -> Found:
    """Measure a minute at a rate with which all parts must keep up."""
    found = Found()
    with production() as stack:
        stack.register_receiver()
        cores = Cores(stack)
        result, received, began, ended = flow(stack, SUSTAINED_S, SUSTAINED_RATE)
        cores.add_to(found, load=result["cpu_share"])
    late = sum(1 for moment in received.values() if moment > ended + BEHIND_S)
    rate = delivered_per_s(received, began, ended)
    halves = [
        sum(1 for moment in received.values() if begin <= moment < begin + SUSTAINED_S / 2 - 3)
        for begin in (began + 3, began + SUSTAINED_S / 2)
    ]
    figures = Found()
    figures.add(f"settled and delivered/s of {SUSTAINED_RATE}/s offered for 60 s", rate, goal=at_least(700))
    figures.add("  second half : first half (a growing backlog shows here)", halves[1] / halves[0], digits=2)
    figures.add("  accepted and never delivered", accepted(result) - len(received), goal=below(1))
    figures.add(f"  delivered later than {BEHIND_S:.0f} s after the load", late)
    figures.add("  other answers than 202", other_answers(result), goal=below(1))
    add_latencies(figures, "  accept", result["latencies_s"])
    figures.figures += found.figures
    sent = {str(index): began + at for index, (at, _status, _latency) in enumerate(result["answers"])}
    figures.plots["end-to-end.svg"] = Plot(
        title="A minute, everything on this machine",
        subtitle=f"{SUSTAINED_RATE} intents per second offered, a signed webhook for each",
        x_name="seconds",
        y_name="payments/s",
        lines=(
            Line("intents sent", by_second(sent, began), BLUE, is_dashed=True),
            Line("webhooks received", by_second(received, began), GREEN),
        ),
    )
    return figures


def embedded_default(seconds: int) -> Found:
    """Measure one process with SQLite and its own Valkey, as `make run` starts it."""
    found = Found()
    with embedded() as stack:
        stack.register_receiver()
        cores = Cores(stack)
        result, received, began, ended = flow(stack, seconds, EMBEDDED_RATE)
        found.add(
            f"settled and delivered/s of {EMBEDDED_RATE}/s offered",
            delivered_per_s(received, began, ended),
            goal=at_least(300),
        )
        found.add("  accepted and never delivered", accepted(result) - len(received), goal=below(1))
        add_latencies(found, "  accept", result["latencies_s"])
        cores.add_to(found, load=result["cpu_share"])
    return found


def full_database(seconds: int) -> Found:
    """Measure the same loads with a million payments in the tables and with empty tables, and compare them."""
    found = Found()
    rates: dict[str, dict[str, float]] = {}
    for name in ("empty", "full"):
        with production() as stack:
            if name == "full":
                print_step("writing a million payments with ten rows each")
                began = time.monotonic()
                asyncio.run(million.fill(stack.settings))
                found.notes["filled_in_s"] = round(time.monotonic() - began)
                # No receiver listens on the URL of this endpoint.
                stack.delete_endpoint(million.ENDPOINT)
            stack.register_receiver()
            print_step(f"the same loads, {name}")
            warm = run_load(stack, plan(stack, "warm", 3))
            # Webhooks of the warm-up that come later would count as those of the flow.
            wait_for_webhooks(stack, accepted(warm))
            _, received, flow_began, flow_ended = flow(stack, seconds, FLOW_RATE)
            result = run_load(stack, plan(stack, "accept", seconds))
            rates[name] = {
                "accepted/s": accepted(result) / result["took_s"],
                f"settled and delivered/s of {FLOW_RATE}/s offered": delivered_per_s(received, flow_began, flow_ended),
            }
            if name == "full":
                for read, values in _reads(stack).items():
                    found.add(f"{read}, p99 at {READS_PER_S}/s", percentiles_ms(values)[99], "ms", goal=below(50))
                found.notes["plans"] = asyncio.run(hot_path_plans(stack.settings, "1", stack.methods()[0]))
    tables_scanned = sum(bool(SCAN.search(text)) for text in found.notes["plans"].values())
    found.add("statements of the hot path that scan a table", tables_scanned, goal=below(1))
    shares = [
        Figure(
            name=f"{rate_name}, full : empty ({values['full']:,.0f} : {values['empty']:,.0f})",
            value=values["full"] / values["empty"],
            unit="x",
            digits=2,
            goal=at_least(0.9),
        )
        for rate_name in rates["empty"]
        for values in ({name: rate[rate_name] for name, rate in rates.items()},)
    ]
    found.figures = [*shares, *found.figures]
    return found


def _reads(stack: Stack) -> dict[str, list[float]]:
    """Read lists, single payments and histories at a fixed rate. Return the durations in seconds, by kind of read.

    The users are spread over the whole table.
    """
    durations: dict[str, list[float]] = {"list": [], "get": [], "history": []}
    with stack.reader() as client:

        def timed(read: str, path: str, **params: Any) -> Any:
            began = time.perf_counter()
            answer = client.get(path, params=params).raise_for_status().json()
            durations[read].append(time.perf_counter() - began)
            return answer

        due = time.monotonic()
        for number in range(READS):
            page = timed("list", "/payments", user_id=str(number * 7 % 5000), limit=20)
            payment_id = page["payments"][number % len(page["payments"])]["id"]
            timed("get", f"/payments/{payment_id}")
            timed("history", f"/payments/{payment_id}/history")
            due += 3 / READS_PER_S
            time.sleep(max(0.0, due - time.monotonic()))
    return durations


def overload(seconds: int) -> Found:
    """Measure half a minute with twice the intents that can be accepted, and the time after it."""
    found = Found()
    with production() as stack:
        run_load(stack, plan(stack, "warm", 3))
        best = run_load(stack, plan(stack, "best", seconds))
        best_rate = accepted(best) / best["took_s"]
        idle_mib = stack.memory_mib("api")
        print_step(f"{2 * best_rate:,.0f} intents per second, where {best_rate:,.0f} can be accepted")
        cores = Cores(stack)
        result = run_load(
            stack,
            plan(stack, "flood", OVERLOAD_S, rate=2 * best_rate, connections=OVERLOAD_CONNECTIONS),
        )
        cores.add_to(found, load=result["cpu_share"])
        most_mib = stack.memory_mib("api")
        print_step("then a tenth of what can be accepted")
        after = run_load(stack, plan(stack, "after", RECOVERS_S + 5, rate=best_rate / 10))
    of = _latencies_by_status(result["answers"])
    settled = [latency for at, _status, latency in after["answers"] if at >= RECOVERS_S]
    figures = Found()
    figures.add("accepted/s at its best", best_rate)
    figures.add(
        "accepted/s while twice of that is offered, part of the best",
        accepted(result) / result["took_s"] / best_rate,
        digits=2,
        goal=at_least(0.9),
    )
    figures.add("  sent/s, really (what the generator could)", len(result["answers"]) / OVERLOAD_S)
    figures.add("  503 of all answers", len(of("503")) / len(result["answers"]), digits=2)
    figures.add("  503 without Retry-After", result["without_retry_after"], goal=below(1))
    figures.add("  neither 202 nor 503", other_answers(result) - len(of("503")), goal=below(1))
    if of("503"):
        add_latencies(figures, "  503 after", of("503"), p99=below(100))
    add_latencies(figures, "  202 after", of("202"))
    figures.add("  API memory, before", idle_mib, "MiB")
    figures.add("  API memory, after", most_mib, "MiB", goal=below(2 * idle_mib))
    figures.add(
        f"accept p99 from {RECOVERS_S} s after the flood on", percentiles_ms(settled)[99], "ms", goal=below(200)
    )
    figures.figures += found.figures
    figures.plots["overload.svg"] = Plot(
        title="Twice the capacity, for half a minute",
        subtitle=f"{2 * best_rate:,.0f} intents per second offered, {best_rate:,.0f} is the best",
        x_name="seconds",
        y_name="answers/s",
        lines=tuple(
            Line(name, _per_second(result["answers"], status), colour)
            for name, status, colour in (("202", "202", GREEN), ("503 with Retry-After", "503", ORANGE))
        ),
    )
    return figures


def _latencies_by_status(answers: list[tuple[float, str, float]]) -> Callable[[str], list[float]]:
    return lambda wanted: [latency for _at, status, latency in answers if status == wanted]


def _per_second(answers: list[tuple[float, str, float]], wanted: str) -> list[tuple[float, float]]:
    return by_second(
        {str(index): at + latency for index, (at, status, latency) in enumerate(answers) if status == wanted}, 0
    )
