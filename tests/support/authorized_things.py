"""What the table of authorization speaks of: its rows, and a new thing for every try of an operation."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from api.dashboard.pages import STATIC_DIGEST
from shared.ids import new_id
from shared.payments.outcomes import ActionNeeded, ActionRequired, ClaimOutcome
from tests.support.api_client import RunningApi, added, card, order
from tests.support.approvals import RETURN_URL, VALID_S
from tests.support.money import AUTHORIZED
from tests.support.notifications import GATEWAY, notification
from tests.support.settling import APPROVED, settled

ACTORS = ("none", "user", "other", "service", "other_s", "admin")
WITHOUT_A_BODY = ("/cancel", "/resend", "/capture", "/refunds", "/verify/run")
NAMED_IN_BODY = {"named_user": "1", "named_taken": "1", "named_ordered": "1", "named_owner": "1"}


@dataclass(frozen=True, slots=True)
class Row:
    """What each client is answered to one operation on one object, at one of its addresses."""

    method: str
    path: str
    thing: str
    answers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.thing}"

    def expected(self, scope: str) -> dict[str, str]:
        """The answer to each client, with this SERVICE_SCOPE."""
        return {
            actor: answer.split("/")[-1 if scope == "created" else 0]
            for actor, answer in zip(ACTORS, self.answers, strict=True)
        }


class Things:
    """Makes what an operation is tried on; every try gets a new one."""

    def __init__(self, running_api: RunningApi) -> None:
        self._database = running_api.database
        self.user = running_api.user(1)
        self.service = running_api.service("shop")
        self.admin = running_api.admin("root")
        self._number = 0

    async def make(self, thing: str) -> dict[str, str]:
        """The ids of a new thing."""
        maker: Callable[[], Any] | None = getattr(self, thing, None)
        return await maker() if maker else {}

    async def method(self) -> dict[str, str]:
        return {"method_id": await added(self.user)}

    async def payment(self, **changes: Any) -> dict[str, str]:
        return await self._payment_of(self.user, **changes)

    async def ordered(self) -> dict[str, str]:
        return await self._payment_of(self.service, user_id="1")

    async def held(self) -> dict[str, str]:
        return await self._settled(self._payment_of(self.user, capture_method="manual"), AUTHORIZED)

    async def held_ordered(self) -> dict[str, str]:
        held = self._payment_of(self.service, capture_method="manual", user_id="1")
        return await self._settled(held, AUTHORIZED)

    async def waiting(self) -> dict[str, str]:
        payment = self._payment_of(self.user, return_url=RETURN_URL)
        return await self._settled(payment, ActionNeeded(ActionRequired("stripe_mock"), VALID_S))

    async def waiting_ordered(self) -> dict[str, str]:
        payment = self._payment_of(self.service, return_url=RETURN_URL, user_id="1")
        return await self._settled(payment, ActionNeeded(ActionRequired("stripe_mock"), VALID_S))

    async def link(self) -> dict[str, str]:
        payment = await self.user.get("/payments/{payment_id}".format(**await self.waiting()))
        return {"token": payment.json()["next_action"]["url"].rpartition("/")[2]}

    async def charged(self) -> dict[str, str]:
        return await self._settled(self._payment_of(self.user), APPROVED)

    async def charged_ordered(self) -> dict[str, str]:
        return await self._settled(self._payment_of(self.service, user_id="1"), APPROVED)

    async def refunded(self) -> dict[str, str]:
        return await self._refunded(self.charged())

    async def refunded_ordered(self) -> dict[str, str]:
        return await self._refunded(self.charged_ordered())

    async def refund(self) -> dict[str, str]:
        return {"refund_id": (await self._refunded(self.charged()))["refund_id"]}

    async def refund_ordered(self) -> dict[str, str]:
        return {"refund_id": (await self._refunded(self.charged_ordered()))["refund_id"]}

    async def _payment_of(self, client: httpx.AsyncClient, **changes: Any) -> dict[str, str]:
        answer = await client.post("/payments", json=order(await added(self.user), **changes))
        return {"payment_id": answer.json()["id"]}

    async def _settled(self, making: Awaitable[dict[str, str]], outcome: ClaimOutcome) -> dict[str, str]:
        made = await making
        await settled(self._database, made["payment_id"], outcome)
        return made

    async def _refunded(self, making: Awaitable[dict[str, str]]) -> dict[str, str]:
        made = await making
        answer = await self.admin.post("/payments/{payment_id}/refunds".format(**made))
        return {**made, "refund_id": answer.json()["id"]}

    async def taken_order(self) -> dict[str, str]:
        return await self._with_order_id(self.payment)

    async def named_ordered(self) -> dict[str, str]:
        return await self._with_order_id(self.ordered)

    async def _with_order_id(self, make: Callable[[], Awaitable[dict[str, str]]]) -> dict[str, str]:
        made = await make()
        payment = (await self.user.get("/payments/{payment_id}".format(**made))).json()
        return {"method_id": payment["payment_method_id"], "order_id": payment["order_id"]}

    async def api_key(self) -> dict[str, str]:
        return {"key_id": (await self.admin.post("/api-keys", json=self.key_body())).json()["id"]}

    async def rule(self) -> dict[str, str]:
        return {"rule_id": (await self.admin.post("/simulation/rules", json=self.rule_body())).json()["id"]}

    filtered = payment
    own_method = named_user = named_method = misnamed_method = method
    named_taken = taken_order

    async def unsigned(self) -> dict[str, str]:
        return {"gateway": GATEWAY}

    async def static(self) -> dict[str, str]:
        return {"digest": STATIC_DIGEST, "name": "tokens.css"}

    async def file(self) -> dict[str, str]:
        return {"name": "viewer.css"}

    async def endpoint(self) -> dict[str, str]:
        answer = await self.service.post("/webhook-endpoints", json=self.endpoint_body())
        return {"endpoint_id": answer.json()["id"]}

    async def callback(self) -> dict[str, str]:
        payment = await self.payment(callback_url="https://me.example/")
        await self.user.post("/payments/{payment_id}/cancel".format(**payment))
        return await self._delivery(payment["payment_id"])

    async def delivery(self) -> dict[str, str]:
        await self.endpoint()
        return await self._delivery((await self.payment())["payment_id"])

    async def _delivery(self, payment_id: str) -> dict[str, str]:
        deliveries = (await self.user.get(f"/payments/{payment_id}/deliveries")).json()["deliveries"]
        return {"delivery_id": deliveries[0]["id"]}

    def endpoint_body(self) -> dict[str, Any]:
        self._number += 1
        url = f"https://o{self._number}.example/"
        return {"name": "o", "url": url, "event_types": ["payment.initiated"]}

    def key_body(self) -> dict[str, Any]:
        return {"name": "orders", "role": "service"}

    def rule_body(self) -> dict[str, Any]:
        return {"name": "away", "effect": {"outage": "unavailable"}, "expires_in_s": 60}

    def body(self, row: Row, ids: dict[str, str]) -> dict[str, Any] | None:
        """What is sent: right in everything but, perhaps, its sender."""
        if row.method not in {"POST", "PATCH"} or row.path.endswith(WITHOUT_A_BODY):
            return None
        if row.method == "PATCH":
            return {"name": "n"} if "endpoint" in row.path else {"display_name": "n"}
        for part, body in (
            ("/action", {"result": "approve"}),
            ("/advance", {"seconds": 0}),
            ("endpoint", self.endpoint_body()),
            ("api-keys", self.key_body()),
            ("rules/test", order(**ids) if "method_id" in ids else None),
            ("rules", self.rule_body()),
        ):
            if part in row.path:
                return body
        if row.path.startswith("/dashboard"):
            return {}
        if row.thing == "unsigned":
            return notification(str(new_id()))
        named = {"user_id": NAMED_IN_BODY[row.thing]} if row.thing in NAMED_IN_BODY else {}
        return {**card(), **named} if "method" in row.path else order(**ids, **named)
