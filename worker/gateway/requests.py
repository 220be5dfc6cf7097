"""What the simulated gateway knows of a payment: its request, and the key of its random numbers."""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from shared.database.engine import Database
from shared.lifecycle import ActionResult, MethodType
from shared.payments.find import earlier_payments
from shared.payments.payment import Payment
from shared.refunds.find import earlier_refunds
from shared.refunds.refund import Refund
from shared.simulation.scenarios import Scenario, read_scenario


@dataclass(frozen=True, slots=True)
class SimulatedRequest:
    """One payment as the simulator sees it.

    The outcome and the delays are random numbers drawn for `seed_key`. `scenario` is the outcome that a test number, a
    test address or a ready-made method names; None if the payment has none. `gateway_try` counts, from 0, the earlier
    tries in which nothing happened. `amount` is in minor units. With `can_redirect` the customer can be sent to a page,
    to approve the payment; `is_approved` says that this has happened.
    """

    payment_id: UUID
    seed_key: str
    method_type: MethodType
    scenario: Scenario | None
    amount: int
    currency: str
    gateway_try: int
    can_redirect: bool = False
    is_approved: bool = False

    @property
    def requires_action(self) -> bool:
        """The customer must approve the payment, and has not."""
        is_challenged = self.scenario is not None and self.scenario.is_challenged
        asks = is_challenged or self.method_type is MethodType.PAYPAL
        return asks and self.can_redirect and not self.is_approved

    @property
    def is_late(self) -> bool:
        """The gateway settles the payment later than it answers."""
        return self.scenario is not None and self.scenario.is_pending


class SeedKeys(Protocol):
    """Finds the key for which a payment's outcome and delays are drawn."""

    async def seed_key(self, payment: Payment) -> str:
        """Return the key, the same at every call for the same payment. Raises DatabaseUnavailable."""
        ...

    async def refund_key(self, payment: Payment, refund: Refund) -> str:
        """Return the key of a refund, the same at every call for the same refund. Raises DatabaseUnavailable."""
        ...


class UnseededKeys:
    """The key is the payment's id, which differs in every run; without SIMULATOR_SEED."""

    async def seed_key(self, payment: Payment) -> str:
        """See `SeedKeys.seed_key`."""
        return str(payment.id)

    async def refund_key(self, payment: Payment, refund: Refund) -> str:  # noqa: ARG002 - the id is enough
        """See `SeedKeys.refund_key`."""
        return str(refund.id)


class RepeatableKeys:
    """The key is what the client sent, which is the same in every run; with SIMULATOR_SEED."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def seed_key(self, payment: Payment) -> str:
        """Return user and idempotency key; without such a key user, order and the number of its earlier payments.

        Raises DatabaseUnavailable.
        """
        if payment.idempotency_key is not None:
            return f"{payment.user_id} key {payment.idempotency_key}"
        async with self._database.read() as connection:
            earlier = await earlier_payments(connection, [payment.id])
        return f"{payment.user_id} order {payment.order_id} {earlier[payment.id]}"

    async def refund_key(self, payment: Payment, refund: Refund) -> str:
        """Return the key of the payment and the number of its earlier refunds. Raises DatabaseUnavailable."""
        async with self._database.read() as connection:
            earlier = await earlier_refunds(connection, refund)
        return f"{await self.seed_key(payment)} refund {earlier}"


async def simulated_request(payment: Payment, keys: SeedKeys) -> SimulatedRequest:
    """Return the request of a payment. Raises DatabaseUnavailable."""
    return SimulatedRequest(
        payment_id=payment.id,
        seed_key=await keys.seed_key(payment),
        method_type=MethodType(payment.method["type"]),
        scenario=read_scenario(payment.method),
        amount=payment.amount,
        currency=payment.currency,
        gateway_try=payment.gateway_tries,
        can_redirect=payment.return_url is not None,
        is_approved=payment.action_result == ActionResult.APPROVED,
    )
