"""Deciding a call: the rules of admins are asked where the request itself names no outcome."""

from dataclasses import replace
from typing import Protocol

from shared.gateway_calls import SeedKeys, payment_call, refund_call
from shared.payments.payment import Payment
from shared.refunds.refund import Refund
from shared.simulation.calls import Call
from shared.simulation.decisions import Decision, OutcomeSettings, decide
from shared.simulation.gateways import gateway_of
from shared.simulation.rules import Fired
from worker.gateway.ledger_errors import ledger_errors_as_unknown


class Rules(Protocol):
    """The rules of admins."""

    async def fired(self, call: Call) -> Fired | None:
        """Return what the rule that fires makes of the call, the same at every repeat; None if none fires.

        Raises OutcomeUnknown.
        """
        ...


class NoRules:
    """No rule fires."""

    async def fired(self, call: Call) -> Fired | None:  # noqa: ARG002 - there is nothing to match
        """See `Rules.fired`."""
        return None


class Decider:
    """Finds the call of a payment or a refund, and decides it."""

    def __init__(self, settings: OutcomeSettings, keys: SeedKeys, rules: Rules) -> None:
        self.settings = settings
        self._keys = keys
        self._rules = rules

    async def of_payment(self, payment: Payment) -> tuple[Call, Decision]:
        """Return the call for what the payment is due for, decided. Raises OutcomeUnknown."""
        return await self._decided(await self.call(payment))

    async def of_refund(self, payment: Payment, refund: Refund) -> tuple[Call, Decision]:
        """Return the call for a refund, decided. Raises OutcomeUnknown."""
        with ledger_errors_as_unknown():
            call = await refund_call(payment, refund, self._keys)
        return await self._decided(call)

    async def call(self, payment: Payment) -> Call:
        """Return the call for what the payment is due for. Raises OutcomeUnknown."""
        with ledger_errors_as_unknown():
            call = await payment_call(payment, self._keys)
        return call if call.gateway else replace(call, gateway=gateway_of(call, self.settings.seed))

    async def _decided(self, call: Call) -> tuple[Call, Decision]:
        fired = None if call.steering.outcomes else await self._rules.fired(call)
        return call, decide(call, self.settings, fired)
