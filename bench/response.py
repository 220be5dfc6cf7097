"""Measures of latency, until the claim, the webhook and an answer that is held, and of the memory of a busy worker."""

from collections.abc import Callable
from datetime import datetime
from time import monotonic, sleep

from bench.figures import Found, at_least, below
from bench.flows import accepted, add_latencies, flow, other_answers, plan
from bench.progress import print_step
from bench.stack import production, run_load

RATE = 200
SAMPLES = 1000
WAITERS, WAIT_S, WAITERS_OVER_S = 1000, 10, 5
FEW, MANY = 2_000, 10_000
LONG_MS = 20_000


def latency(seconds: int) -> Found:
    """Measure what a payment waits for besides the gateway: its claim and its webhook."""
    with production() as stack:
        stack.register_receiver()
        result, received, _, _ = flow(stack, seconds, RATE)
        claim_delays: list[float] = []
        webhook_delays: list[float] = []
        with stack.client as client:
            for payment_id in list(result["accepted"])[:: max(1, len(result["accepted"]) // SAMPLES)]:
                history = client.get(f"/payments/{payment_id}/history").raise_for_status().json()["history"]
                claim_delays.append(_unix_s(history[1]["created_at"]) - _unix_s(history[0]["created_at"]))
                if payment_id in received:
                    webhook_delays.append(received[payment_id] - _unix_s(history[-1]["created_at"]))
    found = Found()
    add_latencies(found, f"accept to PROCESSING at {RATE}/s", claim_delays, p50=below(20), p99=below(100))
    add_latencies(
        found, f"end of the payment to webhook received at {RATE}/s", webhook_delays, p50=below(25), p99=below(150)
    )
    return found


def waiting(_seconds: int) -> Found:
    """Measure the delay of answers that clients have held until the payment has ended."""
    with production() as stack:
        held = plan(
            stack,
            "wait",
            WAITERS_OVER_S,
            rate=WAITERS / WAITERS_OVER_S,
            connections=WAITERS,
            wait_s=WAIT_S,
        )
        run_load(stack, {**held, "run": "warm", "duration_s": 2})
        result = run_load(stack, held)
    found = Found()
    found.add(f"clients holding Prefer: wait={WAIT_S}, answered with the end", len(result["held_s"]))
    found.add("  other answers than 201 and 202", other_answers(result), goal=below(1))
    add_latencies(found, "  end of the payment to the answer", result["held_s"], p99=below(100))
    return found


def in_gateway(_seconds: int) -> Found:
    """Measure the memory of a worker with thousands of payments in the gateway at once."""
    found = Found()
    for count, most_mib in ((FEW, 200), (MANY, 300)):
        print_step(f"{count:,} payments in the gateway")
        slow = {
            "PAYMENT_PROCESSING_DELAY_MIN": str(LONG_MS),
            "PAYMENT_PROCESSING_DELAY_MAX": str(LONG_MS),
            "LEASE_S": "90",
            "WORKER_CONCURRENCY": str(MANY),
        }
        with production(slow) as stack:
            idle_mib = stack.memory_mib("worker")
            stack.register_receiver()
            result = run_load(stack, plan(stack, "memory", 10, rate=count / 10))
            with stack.reader() as reader:
                at_once, memory_mib = _maxima(
                    lambda: sum(worker["in_gateway"] for worker in reader.get("/stats").json()["workers"]),
                    lambda: stack.memory_mib("worker"),
                    for_s=5,
                )
        found.add(f"in the gateway at once, of {accepted(result):,} accepted", at_once, goal=at_least(0.98 * count))
        found.add(f"  worker memory (idle {idle_mib:.0f} MiB)", memory_mib, "MiB", goal=below(most_mib))
    return found


def _maxima(in_gateway_now: Callable[[], int], memory_mib: Callable[[], float], *, for_s: float) -> tuple[int, float]:
    """Poll both functions for `for_s` seconds and return the maximum of each."""
    until, counts, sizes = monotonic() + for_s, [0], [0.0]
    while monotonic() < until:
        counts.append(in_gateway_now())
        sizes.append(memory_mib())
        sleep(0.25)
    return max(counts), max(sizes)


def _unix_s(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
