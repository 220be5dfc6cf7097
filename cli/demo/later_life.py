"""A payment of the demo that is authorized, captured in part, and refunded: each step with its webhooks."""

from datetime import UTC, datetime

import httpx

from cli.demo.client import WAIT_S, Document, User, document, parse_time
from cli.demo.journey import WEBHOOK_MAX_S, Order, title_of
from cli.demo.receiver import Receiver
from cli.demo.results import Checks
from cli.demo.view import Moment, View
from shared.event_types import DEFAULT_EVENTS, EventType
from shared.lifecycle import HistoryReason
from shared.money import format_amount

# The types of events that the demo's endpoint names.
WANTED = (
    *DEFAULT_EVENTS,
    EventType.AUTHORIZED,
    EventType.PARTIALLY_REFUNDED,
    EventType.REFUNDED,
    EventType.REFUND_CREATED,
    EventType.REFUND_COMPLETED,
)
WAITING = {"Prefer": f"wait={WAIT_S}"}
# In minor units. The rest of the order's amount is released.
CAPTURED, REFUNDED_FIRST = 10000, 2500
# The worker's moves; all others are the API's.
BY_WORKER = {
    HistoryReason.CLAIMED,
    HistoryReason.AUTHORIZED,
    HistoryReason.CAPTURED,
    HistoryReason.REFUND_COMPLETED,
}


class LaterLife:
    """The life of one payment after its authorization. `shop` is the service that captures and refunds."""

    def __init__(self, order: Order, shop: User, receiver: Receiver, checks: Checks) -> None:
        self._order = order
        self._shop = shop
        self._receiver = receiver
        self._checks = checks
        self._began = datetime.now(UTC)
        self._moments: list[Moment] = []
        self._payment: Document = {}

    async def run(self) -> None:
        """Take each step, and check its answer and its webhooks. Raises Unexpected."""
        self._began = datetime.now(UTC)
        await self._authorize()
        await self._capture()
        await self._refuse_more_than_captured()
        await self._refund("a part", REFUNDED_FIRST, EventType.PARTIALLY_REFUNDED)
        await self._refund("the rest", None, EventType.REFUNDED)
        await self._read_history()

    def show(self, view: View) -> None:
        """Print the payment and what happened to it."""
        amounts = [
            f"{name} {self._money(self._payment[f'amount_{name}'])}" for name in ("authorized", "captured", "refunded")
        ]
        view.journey(title_of(self._payment), [", ".join(amounts)], self._began, self._moments)

    async def _authorize(self) -> None:
        order = self._order
        answer = await order.user.pay(order.intent, key=order.key)
        self._payment = document(answer)
        self._note(f"POST /payments: {answer.status_code}", self._payment["status"], "manual")
        await self._read_payment()
        self._equal("the payment is authorized", expected="AUTHORIZED", found=self._payment["status"])
        self._equal(
            "nothing is captured yet", expected=(order.amount, 0), found=self._amounts("authorized", "captured")
        )
        await self._await_webhook(EventType.AUTHORIZED)

    async def _capture(self) -> None:
        answer = await self._post("capture", 200, {"amount": CAPTURED})
        self._payment = document(answer)
        self._note(f"POST .../capture: {answer.status_code}", self._payment["status"], self._money(CAPTURED))
        self._equal("the payment is captured", expected="COMPLETED", found=self._payment["status"])
        self._equal("what was asked for is captured", expected=(CAPTURED,), found=self._amounts("captured"))
        await self._await_webhook(EventType.COMPLETED)

    async def _refuse_more_than_captured(self) -> None:
        answer = await self._post("refunds", 409, {"amount": CAPTURED + 1})
        code = document(answer)["code"]
        self._equal("no more than was captured is refunded", expected="refund_exceeds_balance", found=code)
        self._note(f"POST .../refunds: {answer.status_code}", note=code)

    async def _refund(self, what: str, amount: int | None, event_type: EventType) -> None:
        """Refund `amount`, or all that is left. The payment is then as the event says."""
        wanted = self._payment["amount_refundable"] if amount is None else amount
        answer = await self._post("refunds", 201, {} if amount is None else {"amount": amount})
        refund = document(answer)
        self._note(f"POST .../refunds: {answer.status_code}", refund["status"], self._money(refund["amount"]))
        expected = ("COMPLETED", wanted)
        self._equal(f"{what} is refunded", expected=expected, found=(refund["status"], refund["amount"]))
        before = self._payment
        await self._read_payment()
        left = before["amount_refundable"] - wanted
        expected_amounts = (before["amount_refunded"] + wanted, left)
        self._equal(
            f"the amounts follow: {what}", expected=expected_amounts, found=self._amounts("refunded", "refundable")
        )
        status = event_type.removeprefix("payment.").upper()
        self._equal(f"the payment says that {what} is refunded", expected=status, found=self._payment["status"])
        await self._await_webhook(EventType.REFUND_CREATED, refund, is_current=False)
        await self._await_webhook(EventType.REFUND_COMPLETED, refund)
        await self._await_webhook(event_type)

    async def _post(self, path: str, status: int, content: Document) -> httpx.Response:
        where = f"/payments/{self._payment['id']}/{path}"
        return await self._shop.request("POST", where, status=status, content=content, headers=WAITING)

    async def _read_payment(self) -> None:
        self._payment = await self._order.user.get(f"/payments/{self._payment['id']}", WAITING)

    async def _await_webhook(
        self, event_type: EventType, refund: Document | None = None, *, is_current: bool = True
    ) -> None:
        """Wait for the verified webhook. If it `is_current`, it must show payment and refund as the API does."""
        name = f"the webhook {event_type}"
        arrival = await self._receiver.arrival(
            self._payment["id"],
            "endpoint",
            event_type=event_type,
            refund_id=refund["id"] if refund else None,
            timeout_s=WEBHOOK_MAX_S,
        )
        if arrival is None:
            self._checks.fail(f"{name} arrives", f"no verified webhook came within {WEBHOOK_MAX_S} s")
            return
        self._moments.append(Moment(arrival.at, "receiver", event_type, "verified"))
        if is_current:
            self._equal(f"{name} shows the payment as the API does", expected=self._payment, found=arrival.payment)
        if refund is not None:
            expected = refund if is_current else refund | {"status": "PENDING"}
            fields = refund.keys() if is_current else ("id", "amount", "status")
            found = {field: (arrival.refund or {}).get(field) for field in fields}
            self._equal(f"{name} shows the refund", expected={field: expected[field] for field in fields}, found=found)

    async def _read_history(self) -> None:
        """Read the moves of the payment, and check that none is missing."""
        history = (await self._order.user.get(f"/payments/{self._payment['id']}/history"))["history"]
        for move in history:
            actor = "worker" if move["reason"] in BY_WORKER else "api"
            amount = move["metadata"].get("amount")
            self._moments.append(
                Moment(
                    parse_time(move["created_at"]),
                    actor,
                    move["reason"],
                    move["new_status"],
                    "" if amount is None else self._money(amount),
                )
            )
        refunds = [HistoryReason.REFUND_REQUESTED, HistoryReason.REFUND_COMPLETED] * 2
        expected = ["accepted", "claimed", "authorized", "capture_requested", "claimed", "captured", *refunds]
        self._equal("all moves are in the history", expected=expected, found=[move["reason"] for move in history])

    def _amounts(self, *names: str) -> tuple[int, ...]:
        return tuple(self._payment[f"amount_{name}"] for name in names)

    def _money(self, amount: int) -> str:
        return format_amount(amount, self._payment["currency"])

    def _equal(self, expectation: str, *, expected: object, found: object) -> None:
        self._checks.equal(f"{expectation} (order {self._order.order_id})", expected=expected, found=found)

    def _note(self, event: str, status: str = "", note: str = "") -> None:
        self._moments.append(Moment(datetime.now(UTC), "client", event, status, note))
