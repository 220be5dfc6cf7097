"""The five scenarios of the demo. Each one does what a client would do, checks the result and shows it."""

import asyncio
from collections.abc import Coroutine, Sequence
from time import perf_counter
from typing import Any, assert_never

import httpx

from cli.demo.client import User, document, milliseconds, parse_time
from cli.demo.journey import Journey, Order, await_webhook, check_end
from cli.demo.later_life import WANTED, LaterLife
from cli.demo.receiver import Receiver
from cli.demo.results import Checks, Result, summarize
from cli.demo.undecided import LateAnswer, Redirect
from cli.demo.view import Bars, View
from cli.local.service import ServiceProcess
from cli.sample_cards import CREDIT_CARDS, DEBIT_CARDS, DECLINED_CARD, card
from shared.lifecycle import CaptureMethod, MethodType

# The prefix of the correlation ids of the hundred payments at once, by which they are found in the log.
CROWD = "crowd"
CROWD_USERS = 20
ORDERS_PER_USER = 5
CROWD_MIX = (
    MethodType.CREDIT_CARD, MethodType.DEBIT_CARD, MethodType.PAYPAL, MethodType.CREDIT_CARD, MethodType.DEBIT_CARD,
)  # fmt: skip
ACCEPTED, ENDED, VERIFIED = "accepted", "ended", "webhooks verified"


class Scenarios:
    """The scenarios of the demo, for a service that is ready."""

    def __init__(
        self, http: httpx.AsyncClient, service: ServiceProcess, receiver: Receiver, checks: Checks, view: View
    ) -> None:
        self._http = http
        self._service = service
        self._receiver = receiver
        self._checks = checks
        self._view = view
        self._shop = User(http, "demo-shop", role="service")

    async def run(self) -> None:
        """Run all scenarios. Raises Unexpected or httpx.HTTPError if one cannot go on."""
        await self._register_endpoint()
        await self._one_of_each()
        await self._declined_and_repeated()
        await self._captured_and_refunded()
        await self._undecided()
        await self._crowd()
        self._checks.equal("no webhook fails its verification", expected=[], found=self._receiver.refused)

    async def _register_endpoint(self) -> None:
        content = {"name": "demo receiver", "url": self._receiver.url_for("endpoint"), "event_types": list(WANTED)}
        answer = await self._shop.request("POST", "/webhook-endpoints", status=201, content=content)
        self._receiver.secrets["endpoint"] = document(answer)["secret"]

    async def _one_of_each(self) -> None:
        """Make one payment with each type of method at the same time. The PayPal payment has a `callback_url` too."""
        self._view.scenario(
            "1  One payment with each kind of method",
            "POST answers 202 at once. A worker then asks the simulated gateway, which takes 1 to 3 s. Signed webhooks "
            "report the end of each payment. Times are counted from the request.",
        )
        user = User(self._http, "1")
        self._receiver.secrets["callback"] = (await user.get("/callback-secret"))["secret"]
        methods = (
            await user.add_method(MethodType.CREDIT_CARD, card(CREDIT_CARDS[0])),
            await user.add_method(MethodType.DEBIT_CARD, card(DEBIT_CARDS[1])),
            await user.add_method(MethodType.PAYPAL, {"email": "shopper@example.com"}),
        )
        orders = (
            Order(user, "1001", methods[0], 1585),
            Order(user, "1002", methods[1], 4200),
            Order(user, "1003", methods[2], 12900, callback_url=self._receiver.url_for("callback")),
        )
        journeys = [Journey(order, self._receiver, self._checks) for order in orders]
        with self._view.waiting("The gateway is being asked ..."):
            async with asyncio.TaskGroup() as group:
                for journey in journeys:
                    group.create_task(journey.run())
        for journey in journeys:
            self._checks.equal(f"{journey.name} is approved", expected="COMPLETED", found=journey.payment["status"])
            journey.show(self._view)

    async def _declined_and_repeated(self) -> None:
        """Pay with a test card that is always declined, repeat the request, and use its key for another request."""
        self._view.scenario(
            "2  A card that is declined, and a request sent again",
            f"The card {DECLINED_CARD} is always declined. A client that got no answer repeats its request with the "
            "same Idempotency-Key and gets the same payment. Another request with this key is refused.",
        )
        user = User(self._http, "2")
        order = Order(user, "2001", await user.add_method(MethodType.CREDIT_CARD, card(DECLINED_CARD)), 2999)
        journey = Journey(order, self._receiver, self._checks, repeats=True)
        with self._view.waiting("The gateway is being asked ..."):
            await journey.run()
        found = {name: journey.payment[name] for name in ("status", "failure_code", "outcome_rule")}
        declined = {"status": "FAILED", "failure_code": "card_declined", "outcome_rule": "card"}
        self._checks.equal("the test card is declined", expected=declined, found=found)
        listed = (await user.get(f"/payments?order_id={order.order_id}"))["payments"]
        self._checks.equal("the repeated request made one payment", expected=1, found=len(listed))
        journey.show(self._view)

    async def _captured_and_refunded(self) -> None:
        """Authorize a payment, capture a part of it, and refund that in two steps."""
        self._view.scenario(
            "3  Authorized, captured, refunded",
            "With capture_method manual the gateway only holds the amount. A service of the shop captures a part of it "
            "when the goods leave, refunds a part of that and then the rest. Never more than was captured is refunded.",
        )
        user = User(self._http, "3")
        method_id = await user.add_method(MethodType.CREDIT_CARD, card(CREDIT_CARDS[1]))
        order = Order(user, "3001", method_id, 12000, capture_method=CaptureMethod.MANUAL)
        life = LaterLife(order, self._shop, self._receiver, self._checks)
        with self._view.waiting("The gateway is being asked ..."):
            await life.run()
        life.show(self._view)

    async def _undecided(self) -> None:
        """Send a customer to a page to approve a payment, and wait for a late answer of the gateway."""
        self._view.scenario(
            "4  A customer who approves, and an answer that comes late",
            "With return_url a payment may need its customer: next_action.url is the page of the bank or of PayPal. "
            "The demo's customer opens it, approves, and is sent back. Another payment is settled 5 to 15 s after the "
            "gateway's first answer; the gateway then notifies the service, which asks it.",
        )
        user = User(self._http, "4")
        redirect = Redirect(self._http, user, self._receiver, self._checks)
        late = LateAnswer(user, self._receiver, self._checks)
        with self._view.waiting("The gateway settles later ..."):
            await _all_of([redirect.run(), late.run()])
        redirect.show(self._view)
        late.show(self._view)

    async def _crowd(self) -> None:
        """Make a hundred payments at the same moment."""
        count = CROWD_USERS * ORDERS_PER_USER
        self._view.scenario(
            f"5  {count} payments at once",
            f"{CROWD_USERS} users pay {ORDERS_PER_USER} orders each. All requests are sent at the same moment. Then "
            "each client waits for the end of its payment with Prefer: wait, and for its webhook. About 1 payment in "
            "20 fails. A payment fails with network_error only after three tries, which takes longer.",
        )
        with self._view.waiting("Adding payment methods ..."):
            orders = await self._orders()
        with self._view.bars(count, (ACCEPTED, ENDED, VERIFIED)) as bars:
            intents = await _all_of([self._accept(order, bars) for order in orders])
            results = await _all_of([self._follow(*intent, bars) for intent in intents])
        self._view.summary(summarize(results, self._service.answer_times_ms(CROWD)))

    async def _orders(self) -> list[Order]:
        users = [User(self._http, str(101 + index)) for index in range(CROWD_USERS)]
        methods = await _all_of([_add_method(user, index) for index, user in enumerate(users)])
        return [
            Order(user, f"{user.id}-{number}", method_id, 1000 * number + int(user.id))
            for user, method_id in zip(users, methods, strict=True)
            for number in range(1, ORDERS_PER_USER + 1)
        ]

    async def _accept(self, order: Order, bars: Bars) -> tuple[User, str, float]:
        """Send the payment. Return its user, its id, and the milliseconds from the request to the 202."""
        began = perf_counter()
        answer = await order.user.pay(order.intent, key=order.key, correlation_id=f"{CROWD}-{order.order_id}")
        accept_ms = (perf_counter() - began) * 1000
        bars.advance(ACCEPTED)
        return order.user, document(answer)["id"], accept_ms

    async def _follow(self, user: User, payment_id: str, accept_ms: float, bars: Bars) -> Result:
        """Wait for the end of the payment and for its webhook."""
        payment = await user.wait_for_end(payment_id)
        if check_end(self._checks, payment):
            bars.advance(ENDED)
        arrival = await await_webhook(self._checks, self._receiver, payment, "endpoint")
        if arrival is not None:
            bars.advance(VERIFIED)
        ended_at = parse_time(payment["processed_at"]) if payment["processed_at"] else None
        return Result(
            method_type=payment["payment_method_details"]["type"],
            status=payment["status"],
            failure_code=payment["failure_code"],
            accept_ms=accept_ms,
            settle_ms=milliseconds(ended_at - parse_time(payment["created_at"])) if ended_at else None,
            webhook_ms=milliseconds(arrival.at - ended_at) if arrival and ended_at else None,
        )


async def _all_of[T](actions: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run the actions at the same time and return their results in order. The first error cancels the others."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(action) for action in actions]
    return [task.result() for task in tasks]


async def _add_method(user: User, index: int) -> str:
    method_type = CROWD_MIX[index % len(CROWD_MIX)]
    match method_type:
        case MethodType.CREDIT_CARD:
            details = card(CREDIT_CARDS[index % len(CREDIT_CARDS)])
        case MethodType.DEBIT_CARD:
            details = card(DEBIT_CARDS[index % len(DEBIT_CARDS)])
        case MethodType.PAYPAL:
            details = {"email": f"shopper{user.id}@example.com"}
        case _:
            assert_never(method_type)
    return await user.add_method(method_type, details)
