"""The work on one claimed refund: ask the gateway, and find out what the claim ends with."""

import asyncio
from time import monotonic

import structlog

from shared import metrics
from shared.payments.outcomes import Approved, Release, Retry
from shared.refund_lifecycle import RefundFailureCode, RefundHistoryReason
from shared.refunds.outcomes import RefundOutcome, RefundSettled, RefundWork
from worker.gateway.protocol import Gateway, GatewayUnavailable, OutcomeUnknown
from worker.in_flight import InFlight
from worker.rules import ASK_AGAIN_S, ChargeRules
from worker.slots import Interrupted, Slots

log = structlog.get_logger(__name__)


class Repayer:
    """Finds out what the claims of refunds end with."""

    def __init__(self, gateway: Gateway, rules: ChargeRules) -> None:
        self._gateway = gateway
        self._rules = rules
        self._in_gateway = InFlight(metrics.in_gateway)

    @property
    def in_gateway(self) -> int:
        """Refunds that the gateway is working on."""
        return self._in_gateway.count

    async def outcome(self, work: RefundWork, lease_ends: float, slots: Slots) -> RefundOutcome | None:
        """Return what the claim ends with; Release if a shutdown interrupts `slots`.

        Return None if no answer came while the lease held (`lease_ends`, monotonic, in seconds): the next claim asks
        again.
        """
        try:
            async with slots.interruptible():
                with self._in_gateway.counted():
                    return await self._outcome(work, lease_ends, slots)
        except Interrupted:
            return Release()

    async def _outcome(self, work: RefundWork, lease_ends: float, slots: Slots) -> RefundOutcome | None:
        while monotonic() < lease_ends and not slots.is_interrupting:
            try:
                return await self._ask(work)
            except OutcomeUnknown as error:
                log.warning("refund.outcome_unknown", attempt=work.refund.lease_version, error=str(error))
            await asyncio.sleep(ASK_AGAIN_S)
        # The interruption may have been taken for an error of the gateway.
        if slots.is_interrupting:
            return Release()
        log.warning("refund.lease_abandoned", attempt=work.refund.lease_version)
        return None

    async def _ask(self, work: RefundWork) -> RefundOutcome:
        payment, refund = work.payment, work.refund
        # A claim that recorded a retry did not end its worker.
        if refund.lease_version - refund.gateway_tries > self._rules.max_claims:
            return await self._close(work, RefundHistoryReason.CLAIMS_EXHAUSTED)
        try:
            answer = await self._gateway.refund(payment, refund)
        except GatewayUnavailable:
            if refund.gateway_tries + 1 < self._rules.gateway_tries_max:
                return Retry(self._rules.gateway_backoff_s * 2**refund.gateway_tries)
            return await self._close(work, RefundHistoryReason.GATEWAY_UNREACHABLE)
        is_approved = isinstance(answer, Approved)
        reason = RefundHistoryReason.GATEWAY_APPROVED if is_approved else RefundHistoryReason.GATEWAY_DECLINED
        return RefundSettled(answer, reason)

    async def _close(self, work: RefundWork, reason: RefundHistoryReason) -> RefundSettled:
        """Settle the refund by the gateway's own record: after this, the gateway never pays it."""
        answer = await self._gateway.close_refund_or_fetch(work.payment, work.refund, RefundFailureCode.NETWORK_ERROR)
        is_late_approval = isinstance(answer, Approved) and reason is RefundHistoryReason.GATEWAY_UNREACHABLE
        return RefundSettled(answer, RefundHistoryReason.GATEWAY_APPROVED if is_late_approval else reason)
