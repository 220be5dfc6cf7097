"""How often a worker asks the gateway and the order service, and how long it waits between two tries."""

from dataclasses import dataclass

# Seconds after the moment for which a gateway has announced a late answer: then it is asked, notified or not.
POLL_AFTER_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeRules:
    """How often the gateway and the order service are asked, and the backoff (seconds) between two tries.

    A customer has `action_valid_s` seconds to approve a payment. An authorization of a card holds for `card_valid_s`
    seconds, one of PayPal for `paypal_valid_s`.
    """

    max_claims: int
    gateway_tries_max: int
    gateway_backoff_s: float
    order_check_timeout_s: float = 60
    order_backoff_s: float = 1
    action_valid_s: float = 900
    card_valid_s: float = 7 * 24 * 3600
    paypal_valid_s: float = 29 * 24 * 3600
