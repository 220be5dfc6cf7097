"""One payment of the demo in detail: what its client sees, its history and its webhooks."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cli.demo.client import WAIT_S, Document, User, document, is_terminal, parse_time
from cli.demo.receiver import Arrival, Kind, Receiver
from cli.demo.results import Checks
from cli.demo.view import Moment, View
from shared.lifecycle import CaptureMethod, FailureCode, PaymentStatus
from shared.money import format_amount

# Seconds until a webhook is missing: the first attempt comes within milliseconds, the second after about 5 s.
WEBHOOK_MAX_S = 15
# Seconds until a claim is missing: a worker claims a payment within milliseconds, or within 6 s if only the relay
# publishes it.
CLAIM_MAX_S = 15
POLL_INTERVAL_S = 0.02
PLACES: dict[Kind, str] = {"endpoint": "at the endpoint", "callback": "at the callback_url"}


@dataclass(frozen=True, slots=True)
class Order:
    """An order that a user wants to pay."""

    user: User
    order_id: str
    method_id: str
    amount: int
    callback_url: str | None = None
    capture_method: CaptureMethod = CaptureMethod.AUTOMATIC

    @property
    def intent(self) -> Document:
        """The body of `POST /payments`."""
        intent: Document = {"order_id": self.order_id, "payment_method_id": self.method_id, "amount": self.amount}
        if self.callback_url:
            intent |= {"callback_url": self.callback_url}
        return intent | ({"capture_method": "manual"} if self.capture_method is CaptureMethod.MANUAL else {})

    @property
    def key(self) -> str:
        """The idempotency key. There is one intent for each order."""
        return f"order-{self.order_id}"


class Journey:
    """The life of one payment, from its request to its last webhook.

    With `repeats` the request is sent again, and its key is used for another request.
    """

    def __init__(self, order: Order, receiver: Receiver, checks: Checks, *, repeats: bool = False) -> None:
        self._order = order
        self._receiver = receiver
        self._checks = checks
        self._repeats = repeats
        self._began = datetime.now(UTC)
        self._moments: list[Moment] = []
        self.payment: Document = {}
        self.name = ""

    async def run(self) -> None:
        """Send the request, wait for the end and for the webhooks, and check each step. Raises Unexpected."""
        order = self._order
        self._began = datetime.now(UTC)
        answer = await order.user.pay(order.intent, key=order.key)
        self.payment = document(answer)
        self.name = f"the {self.payment['payment_method_details']['type']} payment"
        self._note(f"POST /payments: {answer.status_code}", self.payment["status"])
        self._checks.equal(f"{self.name} is PENDING at first", expected="PENDING", found=self.payment["status"])
        if self._repeats:
            await self._repeat()
        await self._wait_until_claimed()
        self.payment = await order.user.wait_for_end(self.payment["id"])
        self._note(f"GET, Prefer: wait={WAIT_S}", self.payment["status"])
        check_end(self._checks, self.payment)
        await self._read_history()
        await self._await_webhooks()

    def show(self, view: View) -> None:
        """Print the payment and what happened to it."""
        view.journey(title_of(self.payment), _facts(self.payment), self._began, self._moments)

    async def _repeat(self) -> None:
        order = self._order
        again = await order.user.pay(order.intent, key=order.key)
        replay = document(again)
        found = (replay["id"], again.headers.get("Idempotent-Replayed"))
        self._checks.equal("a repeat answers the same payment", expected=(self.payment["id"], "true"), found=found)
        self._note(f"the same again: {again.status_code}", replay["status"], "Idempotent-Replayed")
        other = await order.user.pay(order.intent | {"amount": order.amount + 1}, key=order.key, status=422)
        code = document(other)["code"]
        self._checks.equal("a key fits one request only", expected="idempotency_key_reused", found=code)
        self._note(f"same key, other amount: {other.status_code}", note=code)

    async def _wait_until_claimed(self) -> None:
        """Read the status until it is no longer PENDING. The history shows that the payment was PROCESSING."""
        status = self.payment["status"]
        # The check below fails if the payment is still PENDING.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLAIM_MAX_S):
                while status == PaymentStatus.PENDING:
                    await asyncio.sleep(POLL_INTERVAL_S)
                    status = (await self._order.user.get(f"/payments/{self.payment['id']}/status"))["status"]
        self._note("GET /payments/{id}/status", status)
        is_claimed = status != PaymentStatus.PENDING
        self._checks.holds(f"a worker claims {self.name}", is_claimed, f"it is still PENDING after {CLAIM_MAX_S} s")

    async def _read_history(self) -> None:
        """Read the moves of the payment, and check that none is missing."""
        history = (await self._order.user.get(f"/payments/{self.payment['id']}/history"))["history"]
        for move in history:
            actor = "worker" if move["created_by"] == "worker" else "api"
            note = (move["metadata"].get("failure_code") or "") if move["new_status"] == PaymentStatus.FAILED else ""
            self._moments.append(
                Moment(parse_time(move["created_at"]), actor, move["reason"], move["new_status"], note)
            )
        found = [move["new_status"] for move in history]
        expected = ["PENDING", "PROCESSING", self.payment["status"]]
        self._checks.equal(f"{self.name} has all its moves in its history", expected=expected, found=found)

    async def _await_webhooks(self) -> None:
        kinds: tuple[Kind, ...] = ("endpoint", "callback") if self._order.callback_url else ("endpoint",)
        for kind in kinds:
            arrival = await await_webhook(self._checks, self._receiver, self.payment, kind)
            if arrival is not None:
                self._moments.append(
                    Moment(arrival.at, "receiver", f"webhook {arrival.event_type}", "verified", PLACES[kind])
                )

    def _note(self, event: str, status: str = "", note: str = "") -> None:
        self._moments.append(Moment(datetime.now(UTC), "client", event, status, note))


def title_of(payment: Document) -> str:
    """Return a line with the method and the amount of the payment."""
    details = payment["payment_method_details"]
    means = f"{details['brand']} ending in {details['last4']}" if details.get("brand") else details["email"]
    return f"{details['type']}  {means}  {format_amount(payment['amount'], payment['currency'])}"


def check_end(checks: Checks, payment: Document) -> bool:
    """Check that the payment has ended and that its fields fit its status. Return False if it has not ended."""
    name, status = f"payment {payment['id']}", payment["status"]
    if not checks.holds(f"{name} ends", is_terminal(payment), f"it is still {status}"):
        return False
    if status == PaymentStatus.FAILED:
        code = payment["failure_code"]
        checks.holds(f"{name} says why it failed", code in set(FailureCode), f"its failure_code is {code}")
        return True
    transaction = payment["gateway_transaction_id"]
    checks.equal(f"{name} did not fail, so it is COMPLETED", expected=PaymentStatus.COMPLETED, found=status)
    checks.holds(f"{name} names the gateway's transaction", bool(transaction), f"it is {transaction!r}")
    return True


async def await_webhook(checks: Checks, receiver: Receiver, payment: Document, kind: Kind) -> Arrival | None:
    """Wait for the verified webhook of the payment, and check that it says the same as the API.

    Return None if the webhook does not come within WEBHOOK_MAX_S seconds.
    """
    name = f"the {kind}'s webhook of payment {payment['id']}"
    arrival = await receiver.arrival(payment["id"], kind, timeout_s=WEBHOOK_MAX_S)
    if arrival is None:
        checks.fail(f"{name} arrives", f"no verified webhook came within {WEBHOOK_MAX_S} s")
        return None
    event_type = f"payment.{payment['status'].lower()}"
    checks.equal(f"{name} has the right type", expected=event_type, found=arrival.event_type)
    checks.equal(f"{name} shows the payment as the API does", expected=payment, found=arrival.payment)
    return arrival


def _facts(payment: Document) -> list[str]:
    """Return lines about the end of the payment. Each type of payment method has its own gateway details."""
    if payment["failure_code"]:
        facts = [f"failure_code {payment['failure_code']}, outcome_rule {payment['outcome_rule']}"]
    else:
        facts = [f"{payment['gateway']} {payment['gateway_transaction_id']}"]
    details = [f"{name} {_value(value)}" for name, value in (payment["gateway_details"] or {}).items()]
    return [*facts, ", ".join(details)] if details else facts


def _value(value: Any) -> str:
    is_money = isinstance(value, dict) and value.keys() == {"amount", "currency"}
    return format_amount(value["amount"], value["currency"]) if is_money else str(value)
