"""Refunds at the simulated gateway: their test values, their network errors, and what is repeated."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.database.engine import Database
from shared.ids import new_id
from shared.payments.outcomes import Approved, Declined
from shared.payments.payment import Payment
from shared.refund_lifecycle import RefundFailureCode, RefundStatus
from shared.refunds.refund import Refund
from shared.simulation.decisions import REFUND_NETWORK_ERRORS
from shared.simulation.scenarios import REFUND_DECLINED, scenario_members
from tests.support.gateways import Naps, running_ledger
from tests.support.rows import accepted, ledger_entries
from worker.gateway.ledger import Ledger
from worker.gateway.protocol import GatewayUnavailable
from worker.gateway.simulator import SimulatedGateway

pytest_plugins = ["tests.support.gateway_fixtures"]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def gateway_over(ledger: Ledger, sleep: Callable[[float], Awaitable[None]], **changes: Any) -> SimulatedGateway:
    return SimulatedGateway(
        ledger, **{"success_rate": 1.0, "delay_min_ms": 1000, "delay_max_ms": 1000, "sleep": sleep, **changes}
    )


def charged(**method: Any) -> Payment:
    """Return a payment as it is after its charge."""
    payment = accepted(NOW)
    return replace(
        payment,
        method={**payment.method, **method},
        gateway="stripe_mock",
        gateway_transaction_id="ch_1",
        gateway_details={},
        outcome_rule="rate",
    )


def refund_of(payment: Payment, number: int = 4, **changes: Any) -> Refund:
    values: dict[str, Any] = dict.fromkeys(
        ("cause", "correlation_id", "due_at", "due_reason", "gateway", "gateway_transaction_id", "failure_code",
         "failure_reason", "processed_at")
    )  # fmt: skip
    return Refund(
        **{
            **values,
            "id": new_id(),
            "payment_id": payment.id,
            "number": number,
            "amount": 10,
            "reason": "other",
            "metadata": {},
            "created_by": "service:shop",
            "status": RefundStatus.PROCESSING,
            "sequence": 2,
            "lease_version": 1,
            "gateway_tries": 0,
            "created_at": NOW,
            "updated_at": NOW,
            **changes,
        }
    )


async def test_a_refund_is_paid_once_whoever_asks_again(database: Database, ledger: Ledger) -> None:
    naps = Naps()
    gateway, payment = gateway_over(ledger, naps), charged()
    refund = refund_of(payment)
    first, again = await gateway.refund(payment, refund), await gateway.refund(payment, refund)
    assert isinstance(first, Approved)
    assert first == again
    assert first.transaction_id.startswith("re_")
    assert sum(naps.taken) == pytest.approx(2.0)
    assert isinstance(await gateway.close_refund_or_fetch(payment, refund, RefundFailureCode.NETWORK_ERROR), Approved)
    other = await gateway.refund(payment, refund_of(payment, number=6))
    assert isinstance(other, Approved)
    assert other.transaction_id != first.transaction_id
    assert await ledger_entries(database, payment.id) == ["refund", "refund"]


async def test_a_refund_that_is_closed_is_never_paid(database: Database, ledger: Ledger) -> None:
    gateway, payment = gateway_over(ledger, Naps()), charged()
    refund = refund_of(payment)
    closed = await gateway.close_refund_or_fetch(payment, refund, RefundFailureCode.NETWORK_ERROR)
    assert isinstance(closed, Declined)
    assert await gateway.refund(payment, refund) == closed
    assert await ledger_entries(database, payment.id) == ["refund_decline"]


async def test_the_test_card_for_declined_refunds(ledger: Ledger) -> None:
    gateway, payment = gateway_over(ledger, Naps()), charged(**scenario_members(REFUND_DECLINED))
    answer = await gateway.refund(payment, refund_of(payment))
    assert isinstance(answer, Declined)
    assert answer.failure_code is RefundFailureCode.REFUND_DECLINED


async def test_each_try_of_a_refund_draws_its_own_network_error(database: Database) -> None:
    count = 2000
    async with running_ledger(database, batch_max=count, queue_max=count) as ledger:
        gateway, payment = gateway_over(ledger, Naps(), success_rate=0.95), charged()

        async def fails(refund: Refund) -> bool:
            try:
                await gateway.refund(payment, refund)
            except GatewayUnavailable:
                return True
            return False

        refunds = [refund_of(payment, number) for number in range(3, 3 + count)]
        outcomes = await asyncio.gather(*map(fails, refunds))
        failed = [refund for refund, has_failed in zip(refunds, outcomes, strict=True) if has_failed]
        assert count * REFUND_NETWORK_ERRORS / 3 < len(failed) < count * REFUND_NETWORK_ERRORS * 3
        assert not all(await asyncio.gather(*(fails(replace(refund, gateway_tries=1)) for refund in failed)))
