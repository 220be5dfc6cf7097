"""Requests that steer their calls to the gateway: which there are, and how payments may end that are steered."""

from random import Random
from typing import Any

# Outcomes of a charge or an authorization, and the failure codes with which it may end; "" = it may succeed.
SCRIPTS: dict[tuple[str, ...], set[str]] = {
    ("timeout_charged", "approve"): {""},
    ("timeout_charged",): {""},
    ("timeout_not_charged", "approve"): {""},
    ("network_error", "timeout_charged", "lost_card"): {""},
    ("network_error", "lost_card"): {"lost_card"},
    ("timeout_not_charged",): {"network_error"},
    ("pending_lost", "approve"): {""},
    ("pending", "fraud_suspected"): {"fraud_suspected"},
}
# The parts of the intents, captures and refunds that are steered.
STEERED, STEERED_LATER = 0.15, 0.2
# What is settled by the gateway's record, or by its order, ends so whatever was steered.
ELSE = {"processing_error"}


def drawn_script(random: Random) -> tuple[str, ...]:
    """Return what the calls of an intent are to do; () = nobody steers them."""
    return random.choice(list(SCRIPTS)) if random.random() < STEERED else ()


def drawn_later(random: Random) -> dict[str, Any]:
    """Return the members of the body of a capture or a refund that steer it: its first answer may be lost."""
    if random.random() >= STEERED_LATER:
        return {}
    first = random.choice(["timeout_charged", "timeout_not_charged", "network_error"])
    return {"simulation": {"outcomes": [first, "approve"]}}


def wrong_end(script: tuple[str, ...], failure_code: str | None) -> list[str]:
    """Return what is wrong with the end of a steered payment: its failure code, or that it has none."""
    code = failure_code or ""
    if not script or code in SCRIPTS[script] | ELSE or code.startswith("order_"):
        return []
    return [f"{list(script)} ended with {code or 'success'}"]
