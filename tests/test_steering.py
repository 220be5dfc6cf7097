"""Steered operations, from the request to the ledger: the real gateway under a real processor, on both databases."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import select, update

from shared.broker.client import Broker
from shared.database.engine import Database
from shared.database.tables import payments
from shared.lifecycle import HistoryReason, PaymentStatus
from shared.payments.payment import Payment
from shared.simulation.calls import Steering
from tests.support.processing import NOW, RunningProcessor, due_again, processing, simulated_gateway
from tests.support.rows import accepted, ledger_entries, read, reasons, write
from tests.support.waiting import eventually

CARD = {"type": "CREDIT_CARD", "details": {"brand": "visa", "last4": "4242"}, "scenario": None}


def steered(*outcomes: str, **changes: Any) -> Payment:
    steering = Steering(outcomes=outcomes, delay_ms=0)
    return accepted(NOW, **{"method": CARD, "steering": steering.to_json(), "operation": "charge", **changes})


async def end(running: RunningProcessor, database: Database, payment: Payment) -> Payment:
    """Offer the payment whenever a worker has recorded what its claim ended with, until it has ended."""

    async def has_ended() -> Payment | None:
        found = await read(database, payment.id)
        if found.status.has_ended:
            return found
        # Nobody holds it, and it would be due by now.
        if found.due_reason != HistoryReason.LEASE_EXPIRED:
            await running.offer(found)
        return None

    found = await eventually(has_ended, 30)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("outcomes", "ends", "entries", "claims"),
    [
        (["approve"], "COMPLETED", ["authorize", "capture"], ["claimed"]),
        (["lost_card"], "FAILED lost_card", ["decline"], ["claimed"]),
        (["network_error", "approve"], "COMPLETED", ["authorize", "capture"], ["claimed", "retried"]),
        (["network_error"], "FAILED network_error", ["decline"], ["claimed", "retried", "retried"]),
        (["timeout_charged", "approve"], "COMPLETED", ["authorize", "capture"], ["claimed", "gateway_timed_out"]),
        # What the gateway has done holds, whatever the next outcome is.
        (["timeout_charged", "lost_card"], "COMPLETED", ["authorize", "capture"], ["claimed", "gateway_timed_out"]),
        (["timeout_charged"], "COMPLETED", ["authorize", "capture"],
         ["claimed", "gateway_timed_out", "gateway_timed_out"]),
        (["timeout_not_charged", "approve"], "COMPLETED", ["authorize", "capture"], ["claimed", "gateway_timed_out"]),
        (["timeout_not_charged"], "FAILED network_error", ["decline"],
         ["claimed", "gateway_timed_out", "gateway_timed_out"]),
        (["network_error", "timeout_not_charged", "fraud_suspected"], "FAILED fraud_suspected", ["decline"],
         ["claimed", "retried", "gateway_timed_out"]),
    ],
)  # fmt: skip
async def test_a_script_of_outcomes_ends_right(
    database: Database, broker: Broker, outcomes: list[str], ends: str, entries: list[str], claims: list[str]
) -> None:
    payment = steered(*outcomes)
    await write(database, payment)
    async with (
        simulated_gateway(database) as gateway,
        processing(database, gateway, broker, gateway_backoff_s=0.001) as running,
    ):
        found = await end(running, database, payment)
    assert f"{found.status} {found.failure_code or ''}".strip() == ends
    assert found.outcome_rule == "request"
    assert await ledger_entries(database, payment.id) == entries
    assert [each for each in await reasons(database, payment.id) if each in set(claims)] == claims
    shown = found.to_json()["simulation"]
    assert shown["outcomes"] == outcomes
    assert [(each["call"], each["outcome"], each["by"]) for each in shown["applied"]] == [
        (number, outcomes[min(number, len(outcomes)) - 1], "request") for number in range(1, 1 + len(shown["applied"]))
    ]


async def test_the_number_of_a_call_survives_a_worker_that_died(database: Database, broker: Broker) -> None:
    """The same call is made again under its number: the script goes on where an answer was recorded."""
    payment = steered("network_error", "timeout_charged", "lost_card")
    await write(database, payment)
    async with simulated_gateway(database) as gateway:
        async with processing(database, gateway, broker, gateway_backoff_s=0.001) as running:
            await running.offer(payment)
            await due_again(database, payment, reason=HistoryReason.RETRIED)
        # A worker claims, the gateway charges, and the worker dies before it has recorded that.
        async with database.transaction() as connection:
            changed = update(payments).where(payments.c.id == payment.id)
            await connection.execute(changed.values(lease_version=2, due_reason=HistoryReason.LEASE_EXPIRED,
                                                    operation_claim=2))  # fmt: skip
        async with processing(database, gateway, broker, gateway_backoff_s=0.001) as running:
            await running.offer(await read(database, payment.id))
            found = await end(running, database, payment)
    assert found.status is PaymentStatus.COMPLETED
    applied = found.to_json()["simulation"]["applied"]
    assert [(each["call"], each["outcome"]) for each in applied] == [(1, "network_error"), (2, "timeout_charged")]
    assert await ledger_entries(database, payment.id) == ["authorize", "capture"]


@pytest.mark.parametrize(("outcome", "notifies"), [("pending", 1), ("pending_lost", 0)])
async def test_a_pending_call_is_announced_unless_its_notification_is_lost(
    database: Database, broker: Broker, outcome: str, notifies: int
) -> None:
    payment = steered(outcome, "insufficient_funds")
    await write(database, payment)
    announced: list[Any] = []
    async with (
        simulated_gateway(database, notify_later=announced.append) as gateway,
        processing(database, gateway, broker) as running,
    ):
        await running.offer(payment)
        waiting = await due_again(database, payment, reason=HistoryReason.GATEWAY_SETTLED)
    assert len(announced) == notifies
    assert await ledger_entries(database, payment.id) == ["pending"]
    assert (waiting.status, waiting.earlier_calls) == (PaymentStatus.PROCESSING, 1)


async def test_users_steer_half_of_the_slots_at_most(database: Database, broker: Broker) -> None:
    slow = [steered("approve", user_id=str(number), created_by=f"user:{number}") for number in range(4)]
    for row in slow:
        assert row.steering is not None
        row.steering["delay_ms"] = 60_000
    plain = accepted(NOW, user_id="9", created_by="user:9", method=CARD)
    of_service = steered("approve", user_id="8", created_by="service:shop")
    await write(database, *slow, plain, of_service)
    async with (
        simulated_gateway(database) as gateway,
        processing(database, gateway, broker, concurrency=6) as running,
    ):
        await running.offer(*slow)
        found = await statuses(database, slow)
        assert sorted(found) == ["PENDING", "PROCESSING", "PROCESSING", "PROCESSING"]
        left = await read(database, slow[found.index("PENDING")].id)
        assert (left.lease_version, left.sequence) == (0, 1)
        await running.offer(*slow)
        assert sorted(await statuses(database, slow)) == sorted(found)
        await running.offer(plain, of_service)
        await end(running, database, plain)
        await end(running, database, of_service)


async def statuses(database: Database, rows: Sequence[Payment]) -> list[str]:
    async with database.read() as connection:
        found = await connection.execute(select(payments.c.id, payments.c.status))
    by_id = {row.id: str(row.status) for row in found}
    return [by_id[row.id] for row in rows]
