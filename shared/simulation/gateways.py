"""The gateways that are simulated."""

from enum import StrEnum

from shared.lifecycle import MethodType
from shared.simulation.calls import Call
from shared.simulation.seeded_random import fraction

# The part of card payments that go to Stripe; the others go to Square.
STRIPE_SHARE = 7 / 8


class GatewayName(StrEnum):
    """The name of a gateway; the words that clients see."""

    STRIPE = "stripe_mock"
    SQUARE = "square_mock"
    PAYPAL = "paypal_mock"


def gateway_of(call: Call, seed: str) -> GatewayName:
    """Return the gateway that processes the payment, always the same for one seed key."""
    if call.method_type is MethodType.PAYPAL:
        return GatewayName.PAYPAL
    return GatewayName.STRIPE if fraction(seed, call.seed_key, "gateway") < STRIPE_SHARE else GatewayName.SQUARE
