"""The calls to the simulated gateway that payments and refunds are due for, and the keys of their random numbers."""

from typing import Any, Protocol

from shared.database.engine import Database
from shared.lifecycle import ActionResult, MethodType, PaymentOperation
from shared.payments.find import earlier_payments
from shared.payments.payment import Payment
from shared.refunds.find import earlier_refunds
from shared.refunds.refund import Refund
from shared.simulation.calls import Call, CallOperation, read_steering
from shared.simulation.scenarios import read_scenario


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
            return repeatable_key(payment.user_id, payment.order_id, payment.idempotency_key)
        async with self._database.read() as connection:
            earlier = await earlier_payments(connection, [payment.id])
        return repeatable_key(payment.user_id, payment.order_id, earlier=earlier[payment.id])

    async def refund_key(self, payment: Payment, refund: Refund) -> str:
        """Return the key of the payment and the number of its earlier refunds. Raises DatabaseUnavailable."""
        async with self._database.read() as connection:
            earlier = await earlier_refunds(connection, refund)
        return repeatable_refund_key(await self.seed_key(payment), earlier)


def repeatable_key(user_id: str, order_id: str, idempotency_key: str | None = None, *, earlier: int = 0) -> str:
    """Return the key of a payment in every run. `earlier` is the number of the order's earlier payments."""
    if idempotency_key is not None:
        return f"{user_id} key {idempotency_key}"
    return f"{user_id} order {order_id} {earlier}"


def repeatable_refund_key(of_payment: str, earlier: int) -> str:
    """Return the key of a refund in every run. `earlier` is the number of the payment's earlier refunds."""
    return f"{of_payment} refund {earlier}"


async def payment_call(payment: Payment, keys: SeedKeys) -> Call:
    """Return the call for what the payment is due for. Raises DatabaseUnavailable."""
    is_capture = payment.due_for is PaymentOperation.CAPTURE
    amount = payment.amount if payment.operation_amount is None or not is_capture else payment.operation_amount
    return Call(
        operation=_OPERATIONS[payment.due_for],
        number=(payment.earlier_calls or 0) + payment.gateway_tries + 1,
        gateway_try=payment.gateway_tries,
        amount=amount,
        seed_key=await keys.seed_key(payment),
        may_be_repeated=payment.lease_version > (payment.operation_version or 0) + 1 or bool(payment.earlier_calls),
        steering=read_steering(payment.steering),
        operation_number=payment.operation_number if is_capture else None,
        **facts_of(payment),
    )


async def refund_call(payment: Payment, refund: Refund, keys: SeedKeys) -> Call:
    """Return the call for a refund. Raises DatabaseUnavailable."""
    return Call(
        operation=CallOperation.REFUND,
        number=refund.gateway_tries + 1,
        gateway_try=refund.gateway_tries,
        amount=refund.amount,
        seed_key=await keys.refund_key(payment, refund),
        may_be_repeated=refund.lease_version > 1,
        steering=read_steering(refund.steering),
        refund_id=refund.id,
        operation_number=refund.number,
        **facts_of(payment),
    )


# What is due for a void has no call that could be steered: it is a charge to whoever asks.
_OPERATIONS = {
    PaymentOperation.CHARGE: CallOperation.CHARGE,
    PaymentOperation.AUTHORIZE: CallOperation.AUTHORIZE,
    PaymentOperation.CAPTURE: CallOperation.CAPTURE,
    PaymentOperation.VOID: CallOperation.AUTHORIZE,
}


def facts_of(payment: Payment) -> dict[str, Any]:
    """Return what all calls of a payment have in common."""
    details = payment.method["details"]
    return {
        "payment_id": payment.id,
        "method_type": MethodType(payment.method["type"]),
        "scenario": read_scenario(payment.method),
        "currency": payment.currency,
        "can_redirect": payment.return_url is not None,
        "is_approved": payment.action_result == ActionResult.APPROVED,
        "user_id": payment.user_id,
        "order_id": payment.order_id,
        "metadata": payment.metadata,
        "brand": details.get("brand"),
        "last4": details.get("last4"),
        "gateway": payment.gateway,
    }
