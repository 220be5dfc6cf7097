"""Measures of refunds and captures: how many a worker settles in a second, and the processor time of each."""

from time import monotonic, sleep, time

from bench.figures import Found, below
from bench.flows import accepted, add_latencies, delivered_per_s, other_answers, plan, wait_for_webhooks
from bench.progress import print_step
from bench.stack import PARTS, Stack, production, run_load
from shared.event_types import EventType

# Connections that send without a pause. A refund is a transaction of its own: more of them would only wait.
CONNECTIONS = 20
# Payments that are made before, for each second of the load: more than can be refunded in it.
PREPARED_PER_S = 200
# Payments per second that are made before, and the most seconds until the last one is settled.
PAID_RATE, IDLE_MAX_S = 200, 120
# A credit card that is always approved.
METHOD = "pm_test_visa"


def refunds(seconds: int) -> Found:
    """Measure refunds of whole payments."""
    return _measure("refunds", seconds, EventType.REFUND_COMPLETED, {})


def captures(seconds: int) -> Found:
    """Measure captures of whole authorizations."""
    return _measure("captures", seconds, EventType.COMPLETED, {"capture_method": "manual"})


def _measure(step: str, seconds: int, event_type: EventType, members: dict[str, str]) -> Found:
    """Make payments with these members, ask for the step of one after the other, and wait for the webhooks."""
    found = Found()
    with production() as stack:
        paid = _settled_payments(stack, seconds * PREPARED_PER_S, members)
        stack.register_receiver([event_type])
        print_step(step)
        path = step if step == "refunds" else "capture"
        before, began = stack.cpu_s(), time()
        result = run_load(
            stack,
            plan(
                stack,
                step,
                seconds,
                connections=CONNECTIONS,
                token=stack.service_token(),
                steps=[f"/{payment_id}/{path}" for payment_id in paid],
            ),
        )
        ended = time()
        received = wait_for_webhooks(stack, accepted(result))
        after = stack.cpu_s()
    found.add(f"{step} settled and delivered/s at {CONNECTIONS} connections", delivered_per_s(received, began, ended))
    found.add("  accepted/s", accepted(result) / result["took_s"])
    found.add("  accepted and never delivered", accepted(result) - len(received), goal=below(1))
    found.add("  other answers than 202", other_answers(result), goal=below(1))
    add_latencies(found, "  accept", result["latencies_s"])
    for part in PARTS:
        used_ms = (after[part] - before[part]) * 1000 / max(1, len(received))
        found.add(f"  processor time of one, {part}", used_ms, "ms", digits=3)
    return found


def _settled_payments(stack: Stack, count: int, members: dict[str, str]) -> list[str]:
    """Make `count` payments, wait until no worker has anything to do for them, and return their ids."""
    print_step(f"{count} payments")
    made = run_load(
        stack,
        plan(stack, "paid", count // PAID_RATE + 1, rate=PAID_RATE, methods=[METHOD], members=members),
    )
    deadline = monotonic() + IDLE_MAX_S
    with stack.reader() as client:
        while monotonic() < deadline:
            figures = client.get("/stats").raise_for_status().json()
            if not figures["queue_depth"] + figures["in_flight"]:
                return list(made["accepted"])[:count]
            sleep(0.5)
    raise RuntimeError(f"the payments are not settled after {IDLE_MAX_S} s")
