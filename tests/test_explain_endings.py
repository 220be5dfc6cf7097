"""An explanation of one payment of each kind of ending: its words, its times, and the requests that end alike."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.database.leases import WorkItem
from shared.errors import UpstreamUnavailable
from shared.explain.explanation import Explanation
from shared.lifecycle import ActionResult, FailureCode, MethodType
from shared.payments.payment import Payment
from shared.simulation.calls import Call, Steering
from shared.simulation.ready_made import READY_MADE
from shared.simulation.rules import Fired
from shared.simulation.scenarios import CHALLENGED, REFUND_DECLINED, Scenario, scenario_members
from shared.webhooks.attempts import Exhausted, TryAgain
from shared.webhooks.delivery_log import deliveries_of_payment
from tests.support.deliveries import attempt, claim_one, record
from tests.support.explained import ADMIN, Life, sentences_of, text_of
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


# -- what holds of every explanation

CODE = re.compile(r"\b[a-z0-9]+(?:_[a-z0-9]+)+\b")
# The names of the gateways, and members and names of methods that are quoted as what they are.
NAMED = re.compile(r"\b(?:stripe|square|paypal)_mock\b|`\w+`|\bpm_test_\w+")


def check(explanation: Any) -> None:
    shown = explanation.to_json()
    assert shown["words"] == [section.to_json() for section in explanation.sections()]
    for sentence in sentences_of(explanation):
        assert re.fullmatch(r"(?:[A-Z0-9]|[a-z_.]+ \().*[.)]", sentence), sentence
        assert sentence.endswith(".")
        assert "None" not in sentence
        for code in CODE.findall(NAMED.sub("", sentence)):
            assert f"{code} (" in sentence, (code, sentence)
    times = [shown["time"], *(each["time"] for each in (*shown["refunds"], *shown["deliveries"]))]
    for time in times:
        assert time["total_ms"] == sum(part["ms"] for part in time["parts"])


@pytest.mark.parametrize("kind", ENDINGS)
async def test_each_ending_is_explained_in_sentences_and_its_times_add_up(life: Life, kind: str) -> None:
    happens, status, by = ENDINGS[kind]
    payment_id = await happens(life)
    check(await life.explained(payment_id, ADMIN))
    explanation = await life.explained(payment_id)
    check(explanation)
    shown = explanation.to_json()
    assert (shown["status"], shown["decision"]["by"]) == (status, by), text_of(explanation)
    history = shown["operations"][-1]["history"]
    first, last = shown["operations"][0]["history"][0]["at"], history[-1]["at"]
    assert first == "2026-01-02T03:04:05.678Z"
    if status != "AUTHORIZED":
        assert shown["time"]["total_ms"] == milliseconds(first, last)


def milliseconds(first: str, last: str) -> int:
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)) // timedelta(milliseconds=1)


async def test_what_still_waits_as_its_request_asked_says_so(life: Life) -> None:
    wanted = Steering(pending_ms=86_400_000)
    waiting = await life.accepts(steering=wanted)
    life.passes(40_000)
    assert parts_of(await life.explained(waiting)) == [("requested_wait", 40_000)]
    again = {"order_id": "o-2", "idempotency_key": "k-2"}
    authorized = await paid("approve", capture_method="manual", operation="authorize", **again)(life)
    await life.captures(authorized, 500, wanted)
    life.passes(86_400_500)
    assert parts_of(await life.explained(authorized))[-2:] == [("requested_wait", 86_400_000), ("queue_and_claim", 500)]


async def test_between_two_calls_no_claim_goes_on(life: Life) -> None:
    payment_id = await life.accepts(steering=Steering(outcomes=("network_error", "timeout_charged"), delay_ms=100))
    await life.works_once(payment_id)
    life.passes(300)
    explanation = await life.explained(payment_id)
    check(explanation)
    words = " ".join(text_of(explanation).split())
    assert "goes on" not in words
    assert "Call 1 to the gateway was made. The gateway could not be reached" in words
    assert parts_of(explanation)[-2:] == [("gateway", 100), ("retry_pause", 305)]


def parts_of(explanation: Explanation) -> list[tuple[str, int]]:
    return [(part["name"], part["ms"]) for part in explanation.to_json()["time"]["parts"]]
