"""Payments of the demo that are not decided at once: one asks its customer, the other is settled late."""

import re
from datetime import UTC, datetime
from http import HTTPStatus

import httpx

from cli.demo.client import Document, Unexpected, User, document, parse_time
from cli.demo.journey import await_webhook, check_end, title_of
from cli.demo.receiver import Receiver
from cli.demo.results import Checks
from cli.demo.view import Moment, View

WAITING = {"Prefer": "wait=25"}
# The host of the shop's page. Nobody opens it: the demo only looks where the customer is sent.
RETURN_URL = "https://shop.example/orders/4001"
ONE_TIME_FIELD = re.compile(r'name="form" value="([^"]+)"')
# Seconds from the announcement of a late answer to the end: 15 for the gateway, and some for the notification. Without
# a notification it would take 30 more.
LATE_MAX_S = 25.0


class Undecided:
    """The life of one payment until its end."""

    def __init__(self, user: User, receiver: Receiver, checks: Checks) -> None:
        self._user = user
        self._receiver = receiver
        self._checks = checks
        self._began = datetime.now(UTC)
        self._moments: list[Moment] = []
        self._facts: list[str] = []
        self._payment: Document = {}

    def show(self, view: View) -> None:
        """Print the payment and what happened to it."""
        view.journey(title_of(self._payment), self._facts, self._began, self._moments)

    async def pay(self, intent: Document) -> None:
        """Send the intent."""
        self._began = datetime.now(UTC)
        answer = await self._user.pay(intent, key=f"order-{intent['order_id']}")
        self._payment = document(answer)
        self._note(f"POST /payments: {answer.status_code}", self._payment["status"])

    async def end(self, *reasons: str) -> None:
        """Wait for the end, and check the webhook and the reasons in the history."""
        self._payment = await self._user.wait_for_end(self._payment["id"])
        self._note("GET, Prefer: wait=25", self._payment["status"])
        if check_end(self._checks, self._payment):
            await self._await_webhook()
        history = (await self._user.get(f"/payments/{self._payment['id']}/history"))["history"]
        for move in history:
            actor = move["created_by"] if move["created_by"] in {"worker", "customer"} else "api"
            self._moments.append(Moment(parse_time(move["created_at"]), actor, move["reason"], move["new_status"]))
        found = [move["reason"] for move in history]
        self._checks.equal(f"{title_of(self._payment)} has all its moves", expected=list(reasons), found=found)

    async def _await_webhook(self) -> None:
        arrival = await await_webhook(self._checks, self._receiver, self._payment, "endpoint")
        if arrival is not None:
            self._moments.append(Moment(arrival.at, "receiver", f"webhook {arrival.event_type}", "verified"))

    def _note(self, event: str, status: str = "", note: str = "") -> None:
        self._moments.append(Moment(datetime.now(UTC), "client", event, status, note))


class Redirect(Undecided):
    """A payment whose customer is sent to a page, approves there, and is sent back to the shop."""

    def __init__(self, http: httpx.AsyncClient, user: User, receiver: Receiver, checks: Checks) -> None:
        super().__init__(user, receiver, checks)
        self._http = http

    async def run(self) -> None:
        """Pay, approve as the customer does, and wait for the end. Raises Unexpected."""
        await self.pay(
            {"order_id": "4001", "payment_method_id": "pm_test_paypal", "amount": 6400, "return_url": RETURN_URL}
        )
        self._payment = await self._user.get(f"/payments/{self._payment['id']}", WAITING)
        self._note("GET, Prefer: wait=25", self._payment["status"])
        status = self._payment["status"]
        if not self._checks.equal("the payment asks its customer", expected="REQUIRES_ACTION", found=status):
            raise Unexpected(f"the payment is {status}")
        url = self._payment["next_action"]["url"]
        left_for = await self._approve(url, await self._open_page(url))
        self._facts = [f"sent back to {RETURN_URL}", f"with {left_for.partition('&')[2]} and the payment's id"]
        expected = f"{RETURN_URL}?payment_id={self._payment['id']}&status="
        is_back = left_for.startswith(expected)
        self._checks.holds("the customer is sent back to the shop", is_back, f"the page leads to {left_for!r}")
        await self.end("accepted", "claimed", "action_required", "action_approved", "claimed", "gateway_approved")

    async def _open_page(self, url: str) -> str:
        """Open the page of the bank or of PayPal, and return its one-time field."""
        page = await self._http.get(url)
        field = ONE_TIME_FIELD.search(page.text)
        if page.status_code != HTTPStatus.OK or field is None:
            raise Unexpected(f"the page answered {page.status_code}: {page.text[:500]}")
        self._moments.append(Moment(datetime.now(UTC), "customer", "opens next_action.url"))
        return field[1]

    async def _approve(self, url: str, field: str) -> str:
        """Press the button, and return where the result page leads."""
        form = {"form": field, "result": "approve"}
        pressed = await self._http.post(url, data=form)
        self._moments.append(Moment(datetime.now(UTC), "customer", "approves"))
        self._checks.equal("the page takes the approval", expected=303, found=pressed.status_code)
        result = await self._http.get(url)
        return str(result.headers.get("refresh", "")).partition("url=")[2]


class LateAnswer(Undecided):
    """A payment that the gateway settles some seconds after its answer."""

    async def run(self) -> None:
        """Pay, and wait for the late answer. Raises Unexpected."""
        await self.pay({"order_id": "4002", "payment_method_id": "pm_test_paypal_pending", "amount": 8100})
        await self.end("accepted", "claimed", "gateway_pending", "gateway_settled", "gateway_approved")
        took_s = (parse_time(self._payment["processed_at"] or "") - self._began).total_seconds()
        is_notified = took_s < LATE_MAX_S
        self._checks.holds("the gateway notifies of its late answer", is_notified, f"it took {took_s:.0f} s")
        self._facts = [f"settled {took_s:.1f} s after the request; no slot was held meanwhile"]
