"""The work on one claimed payment: check its order, ask the gateway, and find out what the claim ends with.

With an order service, the gateway is asked to charge, authorize or capture only after the order was found payable. A
payment that fails because of its order is voided at the gateway first: if the gateway has already decided it, the
gateway's answer counts.
"""

from datetime import timedelta

import structlog

from shared import metrics
from shared.errors import UpstreamUnavailable
from shared.lifecycle import FailureCode, HistoryReason, PaymentOperation
from shared.payments.outcomes import ClaimOutcome, Postpone
from shared.payments.payment import Payment
from worker.asking import ask_within_lease, release_if_interrupted
from worker.gateway.protocol import Gateway
from worker.in_flight import InFlight
from worker.orders import NotPayable, OrderChecker
from worker.payments.operations import BACKOFF_DOUBLINGS_MAX, Operations, Refusal
from worker.rules import ChargeRules
from worker.slots import Slots

log = structlog.get_logger(__name__)

# The longest backoff, in seconds, while the order service does not answer.
ORDER_BACKOFF_MAX_S = 10.0


class Charger:
    """Finds out what the claims of payments end with. Without `orders` every order counts as payable."""

    def __init__(self, gateway: Gateway, rules: ChargeRules, orders: OrderChecker | None = None) -> None:
        self._operations = Operations(gateway, rules)
        self._rules = rules
        self._orders = orders
        self._in_gateway = InFlight(metrics.in_gateway)
        self._checking_orders = InFlight(metrics.checking_orders)

    @property
    def in_gateway(self) -> int:
        """Payments that the gateway is working on."""
        return self._in_gateway.count

    @property
    def checking_orders(self) -> int:
        """Payments that wait for the order service."""
        return self._checking_orders.count

    @property
    def checks_orders(self) -> bool:
        """There is an order service: it checks orders, and is told of completed payments."""
        return self._orders is not None

    async def outcome(self, payment: Payment, lease_ends: float, slots: Slots) -> ClaimOutcome | None:
        """Return what the claim ends with; Release if a shutdown interrupts `slots`.

        Return None if no answer came while the lease held (`lease_ends`, monotonic, in seconds): the next claim asks
        again.
        """
        return await release_if_interrupted(lambda: self._outcome(payment, lease_ends, slots), slots)

    async def _outcome(self, payment: Payment, lease_ends: float, slots: Slots) -> ClaimOutcome | None:
        objection = await self._check_order(payment)
        if isinstance(objection, Postpone):
            return objection
        with self._in_gateway.counted():
            return await ask_within_lease(
                lambda: self._operations.ask(payment, objection),
                lease_ends=lease_ends,
                slots=slots,
                name="payment",
                attempt=payment.lease_version,
            )

    async def _check_order(self, payment: Payment) -> Refusal | Postpone | None:
        """Return why the payment must not be charged, or Postpone to check its order again; None if neither."""
        # What is to be voided is voided whatever its order says.
        if self._orders is None or payment.due_for is PaymentOperation.VOID:
            return None
        if self._operations.exceeded_max_claims(payment):
            return None
        try:
            with self._checking_orders.counted():
                check = await self._orders.check(payment)
        except UpstreamUnavailable as error:
            claimed_at = payment.updated_at
            until = payment.order_check_until or claimed_at + timedelta(seconds=self._rules.order_check_timeout_s)
            log.warning("payment.order_unreachable", attempt=payment.lease_version, error=str(error))
            if claimed_at >= until:
                return Refusal(FailureCode.ORDER_SERVICE_UNAVAILABLE, HistoryReason.ORDER_CHECK_TIMED_OUT)
            wait_s = self._rules.order_backoff_s * 2 ** min(payment.order_checks, BACKOFF_DOUBLINGS_MAX)
            return Postpone(min(wait_s, ORDER_BACKOFF_MAX_S), until)
        if isinstance(check, NotPayable):
            return Refusal(check.failure_code, HistoryReason.ORDER_REFUSED)
        return None
