"""One payment of each kind of ending, lived in the test's own time."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.database.leases import WorkItem
from shared.errors import UpstreamUnavailable
from shared.lifecycle import ActionResult, FailureCode, MethodType
from shared.payments.payment import Payment
from shared.simulation.calls import Call, Steering
from shared.simulation.ready_made import READY_MADE
from shared.simulation.rules import Fired
from shared.simulation.scenarios import CHALLENGED, REFUND_DECLINED, Scenario, scenario_members
from shared.webhooks.attempts import Exhausted, TryAgain
from shared.webhooks.delivery_log import deliveries_of_payment
from tests.support.deliveries import attempt, claim_one, record
from tests.support.explained import Life
from tests.support.gateways import running_ledger
from tests.support.harness import SetClock
from worker.orders import NotPayable, OrderCheck, Payable

type MakeSettings = Callable[..., Settings]
type Story = Callable[[Life], Awaitable[UUID]]

SHOP = "https://shop.example/paid"
RULE = Fired(rule_id=UUID(int=7), name="issuer-down", outcomes=("insufficient_funds",), delay_ms=10)


class OneRule:
    """A rule that fires for the orders of rules."""

    async def fired(self, call: Call) -> Fired | None:
        return RULE if call.order_id.startswith("rule-") else None


class Orders:
    """An order service that does not answer for the orders of `silent-`, and refuses those of `refused-`."""

    async def check(self, payment: Payment) -> OrderCheck:
        if payment.order_id.startswith("silent-"):
            raise UpstreamUnavailable("no answer")
        is_refused = payment.order_id.startswith("refused-")
        return NotPayable(FailureCode.ORDER_AMOUNT_MISMATCH) if is_refused else Payable()


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def opened(make_settings: MakeSettings, clock: SetClock) -> AsyncIterator[tuple[Database, Settings]]:
    settings = make_settings(
        simulator_seed="explain",
        payment_success_rate=0.95,
        payment_failure_scenarios=True,
        payment_processing_delay_min=1000,
        payment_processing_delay_max=3000,
        gateway_backoff_s=1,
    )
    database = open_database(settings, clock=clock)
    yield database, settings
    await database.dispose()


@pytest.fixture
async def life(opened: tuple[Database, Settings], clock: SetClock) -> AsyncIterator[Life]:
    database, settings = opened
    async with running_ledger(database) as ledger:
        yield Life(database, ledger, clock, settings, rules=OneRule(), orders=Orders())


def method(scenario: Scenario | None, method_type: MethodType = MethodType.CREDIT_CARD) -> dict[str, Any]:
    details = {"email": "d***d@paypal.test"} if method_type is MethodType.PAYPAL else {"brand": "visa", "last4": "0002"}
    return {"type": method_type, "details": details, **scenario_members(scenario)}


def paid(*outcomes: str, **changes: Any) -> Story:
    """Return a life in which a payment is accepted, and ends."""

    async def happens(life: Life) -> UUID:
        steering = Steering(outcomes=outcomes) if outcomes else None
        payment_id = await life.accepts(steering=steering, **changes)
        await life.works(payment_id)
        return payment_id

    return happens


def answered(result: ActionResult | None, **changes: Any) -> Story:
    """Return a life in which the customer is asked, and answers or does not."""

    async def happens(life: Life) -> UUID:
        payment_id = await life.accepts(method=method(CHALLENGED), return_url=SHOP, **changes)
        await life.works(payment_id)
        life.passes(60_000)
        if result is None:
            await life.works_once(payment_id)
        else:
            await life.answers(payment_id, result)
            await life.works(payment_id)
        return payment_id

    return happens


async def cancelled(life: Life) -> UUID:
    payment_id = await life.accepts(steering=Steering(outcomes=("approve",), pending_ms=5000))
    life.passes(300)
    await life.cancels(payment_id)
    return payment_id


async def cancelled_by_customer(life: Life) -> UUID:
    payment_id = await life.accepts(method=method(CHALLENGED), return_url=SHOP)
    await life.works(payment_id)
    await life.cancels(payment_id)
    return payment_id


async def exhausted(life: Life) -> UUID:
    payment_id = await life.accepts()
    for _ in range(2):
        await life.works_once(payment_id, dies=True)
    await life.works(payment_id)
    return payment_id


def held(then: Callable[[Life, UUID], Awaitable[object]]) -> Story:
    """Return a life in which a payment is authorized, and more happens after an hour."""

    async def happens(life: Life) -> UUID:
        payment_id = await life.accepts(
            capture_method="manual", operation="authorize", method=READY_MADE["pm_test_visa"].copy_for_payment()
        )
        await life.works(payment_id)
        life.passes(3_600_000)
        await then(life, payment_id)
        return payment_id

    return happens


async def captured(life: Life, payment_id: UUID) -> None:
    await life.captures(payment_id, 1000)
    await life.works(payment_id)


async def capture_failed(life: Life, payment_id: UUID) -> None:
    await life.captures(payment_id, 1000, Steering(outcomes=("capture_declined",)))
    await life.works(payment_id)


async def voided(life: Life, payment_id: UUID) -> None:
    await life.cancels(payment_id)
    await life.works(payment_id)


async def expired(life: Life, payment_id: UUID) -> None:
    life.passes(8 * 24 * 3600 * 1000)
    await life.works_once(payment_id)


async def not_delivered(life: Life) -> UUID:
    payment_id = await paid(callback_url="https://shop.example/hooks?token=1")(life)
    async with life.database.read() as connection:
        page = await deliveries_of_payment(connection, payment_id, limit=10, after_id=None)
    item = WorkItem(page.deliveries[0].id, 0)
    for outcome in (TryAgain(wait_s=60), Exhausted()):
        life.passes(60_000)
        sent = await claim_one(life.database, item, now=life.clock.moment)
        life.passes(30)
        await record(life.database, attempt(sent, outcome), now=life.clock.moment)
        item = sent.work_item
    return payment_id


def refunded(*refunds: tuple[int, Steering | None], **changes: Any) -> Story:
    async def happens(life: Life) -> UUID:
        payment_id = await paid("approve", **changes)(life)
        for amount, steering in refunds:
            await life.refunds(payment_id, amount, steering)
        return payment_id

    return happens


ENDINGS: dict[str, tuple[Story, str, str | None]] = {
    "approved by rate": (paid(), "COMPLETED", "rate"),
    "declined by rate": (paid(idempotency_key="decline-71"), "FAILED", "rate"),
    "network error by rate": (paid(idempotency_key="decline-62"), "FAILED", "rate"),
    "test card": (paid(method=method(Scenario(FailureCode.CARD_DECLINED))), "FAILED", "card"),
    "test address": (
        paid(method=method(Scenario(FailureCode.INSTRUMENT_DECLINED), MethodType.PAYPAL)),
        "FAILED",
        "address",
    ),
    "amount": (paid(amount=1601), "FAILED", "amount"),
    "ready-made method": (paid(method=READY_MADE["pm_test_lost_card"].copy_for_payment()), "FAILED", "card"),
    "steered by the request": (paid("stolen_card"), "FAILED", "request"),
    "rule": (paid(order_id="rule-1"), "FAILED", "rule:00000000-0000-0000-0000-000000000007"),
    "network errors": (paid("network_error"), "FAILED", "request"),
    "lost answer, found": (paid("timeout_charged"), "COMPLETED", "request"),
    "lost answer, then charged": (paid("timeout_not_charged", "approve"), "COMPLETED", "request"),
    "lost answer, never charged": (paid("timeout_not_charged"), "FAILED", "request"),
    "pending, then approved": (paid("pending"), "COMPLETED", "request"),
    "pending, then declined": (paid("pending_lost", "card_declined"), "FAILED", "request"),
    "pending by method": (
        paid(method=READY_MADE["pm_test_paypal_pending_declined"].copy_for_payment()),
        "FAILED",
        "address",
    ),
    "3-D Secure": (answered(ActionResult.APPROVED), "COMPLETED", "rate"),
    "declined by the customer": (answered(ActionResult.DECLINED), "FAILED", "customer"),
    "not answered by the customer": (answered(None), "FAILED", "customer"),
    "no page for 3-D Secure": (paid(method=method(CHALLENGED)), "FAILED", "card"),
    "cancelled": (cancelled, "CANCELLED", None),
    "cancelled instead of an answer": (cancelled_by_customer, "CANCELLED", None),
    "workers died": (exhausted, "FAILED", "closed"),
    "authorized and captured": (held(captured), "COMPLETED", "card"),
    "capture failed": (held(capture_failed), "AUTHORIZED", "card"),
    "voided": (held(voided), "CANCELLED", "card"),
    "authorization expired": (held(expired), "CANCELLED", "card"),
    "order refused": (paid(order_id="refused-1"), "FAILED", "order"),
    "order service silent": (paid(order_id="silent-1"), "FAILED", "order"),
    "delivery exhausted": (not_delivered, "COMPLETED", "rate"),
    "refunded in parts": (
        refunded((500, None), (600, Steering(outcomes=("timeout_charged",), delay_ms=100))),
        "PARTIALLY_REFUNDED",
        "request",
    ),
    "refund declined": (refunded((500, None), method=method(REFUND_DECLINED)), "COMPLETED", "request"),
}
