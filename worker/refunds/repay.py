"""The work on one claimed refund: ask the gateway, and find out what the claim ends with."""

from dataclasses import replace

from shared import metrics
from shared.payments.outcomes import Approved, Pending, Retry, Unsettled
from shared.refund_lifecycle import RefundFailureCode, RefundHistoryReason
from shared.refunds.outcomes import RefundOutcome, RefundSettled, RefundWork
from worker.asking import ask_within_lease, release_if_interrupted
from worker.gateway.protocol import Gateway, GatewayTimedOut, NoAnswer
from worker.in_flight import InFlight
from worker.rules import POLL_AFTER_S, ChargeRules
from worker.slots import Slots


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
        return await release_if_interrupted(lambda: self._outcome(work, lease_ends, slots), slots)

    async def _outcome(self, work: RefundWork, lease_ends: float, slots: Slots) -> RefundOutcome | None:
        with self._in_gateway.counted():
            return await ask_within_lease(
                lambda: self._ask(work),
                lease_ends=lease_ends,
                slots=slots,
                name="refund",
                attempt=work.refund.lease_version,
            )

    async def _ask(self, work: RefundWork) -> RefundOutcome:
        payment, refund = work.payment, work.refund
        # A claim that recorded a retry did not end its worker.
        if refund.lease_version - refund.gateway_tries > self._rules.max_claims:
            return await self._close(work, RefundHistoryReason.CLAIMS_EXHAUSTED)
        try:
            answer = await self._gateway.refund(payment, refund)
        except NoAnswer as error:
            if refund.gateway_tries + 1 < self._rules.gateway_tries_max:
                wait_s = self._rules.gateway_backoff_s * 2**refund.gateway_tries
                return Retry(wait_s, isinstance(error, GatewayTimedOut), error.remark)
            return await self._close(work, RefundHistoryReason.GATEWAY_UNREACHABLE, error)
        if isinstance(answer, Pending):
            return Unsettled(answer, answer.settles_in_s + POLL_AFTER_S)
        is_approved = isinstance(answer, Approved)
        reason = RefundHistoryReason.GATEWAY_APPROVED if is_approved else RefundHistoryReason.GATEWAY_DECLINED
        return RefundSettled(answer, reason)

    async def _close(
        self, work: RefundWork, reason: RefundHistoryReason, error: NoAnswer | None = None
    ) -> RefundSettled:
        """Settle the refund by the gateway's own record: after this, the gateway never pays it."""
        answer = await self._gateway.close_refund_or_fetch(work.payment, work.refund, RefundFailureCode.NETWORK_ERROR)
        if error is not None:
            answer = replace(answer, remark=error.remark or answer.remark)
        is_late_approval = isinstance(answer, Approved) and reason is RefundHistoryReason.GATEWAY_UNREACHABLE
        return RefundSettled(answer, RefundHistoryReason.GATEWAY_APPROVED if is_late_approval else reason)
