"""The gateways that are simulated."""

from enum import StrEnum


class GatewayName(StrEnum):
    """The name of a gateway; the words that clients see."""

    STRIPE = "stripe_mock"
    SQUARE = "square_mock"
    PAYPAL = "paypal_mock"
