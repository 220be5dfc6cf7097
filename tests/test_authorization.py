"""Authorization: every operation and every kind of client, in one table. An operation without a row fails."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from api.dashboard.pages import STATIC_DIGEST
from api.main import create_app
from api.paths import PAYMENTS, PLATFORM_PREFIX, PREFIX
from api.state import Api
from shared.config.settings import Settings, load_settings
from shared.ids import new_id
from shared.payments.outcomes import ActionNeeded, ActionRequired, ClaimOutcome
from shared.runtime import open_runtime
from tests.support.api_client import APPROVED, RunningApi, added, card, created_key, order, settled
from tests.support.approvals import RETURN_URL, VALID_S
from tests.support.money import AUTHORIZED
from tests.support.notifications import GATEWAY, notification

pytest_plugins = ["tests.support.api_fixtures"]

# What each client is answered. The objects are: a payment, method, refund, callback or delivery of `user` (the payment
# created by them, or by `service` for them where it is `ordered`), or an endpoint of `service`. `sees` and `not` are
# 200 with and without the object in the list. 404 is the answer to whatever is not theirs: not even that it exists is
# shown. (An admin's 404 for the last verification says that there was none.) 409+ names the payment of the order and
# 409 does not. The same card again is 200. A form without the value of its page is 400. Where two answers stand, the
# second is that of SERVICE_SCOPE=created. The dashboard takes no token but at its sign-in, so everybody is led there.
# `other_s` has an API key, the other clients have tokens.
TABLE = """
operation                                    object           none user other service other_s admin

GET    /health                               -                 200  200  200   200     200     200
GET    /health/ready                         -                 200  200  200   200     200     200
GET    /metrics                              -                 200  200  200   200     200     200
GET    /openapi.json                         -                 200  200  200   200     200     200
GET    /                                     -                 307  307  307   307     307     307
GET    /docs                                 -                 200  200  200   200     200     200
GET    /docs/{name}                          file              200  200  200   200     200     200
GET    /approve/{token}                      link              200  200  200   200     200     200
POST   /approve/{token}                      link              400  400  400   400     400     400

GET    /dashboard/sign-in                   -                 200  200  200   200     200     200
POST   /dashboard/sign-in                   -                 415  415  415   415     415     415
GET    /dashboard/static/{digest}/{name}    static            200  200  200   200     200     200
GET    /dashboard                                                   -          303  303  303   303     303     303
GET    /dashboard/                                                  -          303  303  303   303     303     303
GET    /dashboard/stream                                            -          303  303  303   303     303     303
POST   /dashboard/sign-out                                          -          303  303  303   303     303     303
GET    /dashboard/find                                              -          303  303  303   303     303     303
GET    /dashboard/payments                                          -          303  303  303   303     303     303
GET    /dashboard/payments/{payment_id}                             payment    303  303  303   303     303     303
POST   /dashboard/payments/{payment_id}/cancel                      payment    303  303  303   303     303     303
POST   /dashboard/payments/{payment_id}/capture                     held       303  303  303   303     303     303
POST   /dashboard/payments/{payment_id}/refund                      charged    303  303  303   303     303     303
POST   /dashboard/payments/{payment_id}/answer                      waiting    303  303  303   303     303     303
POST   /dashboard/payments/{payment_id}/refunds/{refund_id}/cancel  refunded   303  303  303   303     303     303
GET    /dashboard/webhooks                                          -          303  303  303   303     303     303
GET    /dashboard/webhooks/{endpoint_id}                            endpoint   303  303  303   303     303     303
POST   /dashboard/webhooks/{endpoint_id}/enable                     endpoint   303  303  303   303     303     303
POST   /dashboard/webhooks/{endpoint_id}/disable                    endpoint   303  303  303   303     303     303
GET    /dashboard/deliveries/{delivery_id}                          delivery   303  303  303   303     303     303
POST   /dashboard/deliveries/{delivery_id}/resend                   delivery   303  303  303   303     303     303
GET    /dashboard/simulator                                         -          303  303  303   303     303     303
POST   /dashboard/simulator                                         -          303  303  303   303     303     303
POST   /dashboard/simulator/rules                                   -          303  303  303   303     303     303
POST   /dashboard/simulator/clock                                   -          303  303  303   303     303     303
POST   /dashboard/simulator/rules/preset                            -          303  303  303   303     303     303
POST   /dashboard/simulator/rules/delete                            -          303  303  303   303     303     303
GET    /dashboard/system                                            -          303  303  303   303     303     303
POST   /dashboard/system/verify                                     -          303  303  303   303     303     303

POST   /payments                             own_method        401  202  422   422     422     422
POST   /payments                             named_user        401  403  403   202     202     202
POST   /payments                             taken_order       401  409+ 422   422     422     422
POST   /payments                             named_taken       401  403  403   409+/409 409+/409 409+
POST   /payments                             named_ordered     401  403  403   409+    409+/409 409+
GET    /payments                             payment           401  sees not   sees/not sees/not sees
GET    /payments                             ordered           401  sees not   sees    sees/not sees
GET    /payments                             filtered          401  403  403   sees/403 sees/403 sees
GET    /payments/{payment_id}                payment           401  200  404   200/404 200/404 200
GET    /payments/{payment_id}                ordered           401  200  404   200     200/404 200
GET    /payments/{payment_id}/status         payment           401  200  404   200/404 200/404 200
GET    /payments/{payment_id}/status         ordered           401  200  404   200     200/404 200
GET    /payments/{payment_id}/history        payment           401  200  404   200/404 200/404 200
GET    /payments/{payment_id}/history        ordered           401  200  404   200     200/404 200
GET    /payments/{payment_id}/deliveries     payment           401  200  404   200/404 200/404 200
GET    /payments/{payment_id}/deliveries     ordered           401  200  404   200     200/404 200
GET    /payments/{payment_id}/explain        payment           401  200  404   200/404 200/404 200
GET    /payments/{payment_id}/explain        ordered           401  200  404   200     200/404 200
POST   /payments/{payment_id}/cancel         payment           401  200  404   200/404 200/404 200
POST   /payments/{payment_id}/cancel         ordered           401  200  404   200     200/404 200
POST   /payments/{payment_id}/cancel         held              401  202  404   202/404 202/404 202
POST   /payments/{payment_id}/cancel         waiting           401  200  404   200/404 200/404 200
POST   /payments/{payment_id}/action         waiting           401  202  404   202/404 202/404 202
POST   /payments/{payment_id}/action         waiting_ordered   401  202  404   202     202/404 202
POST   /payments/{payment_id}/capture        held              401  403  404   202/404 202/404 202
POST   /payments/{payment_id}/capture        held_ordered      401  403  404   202     202/404 202
POST   /payments/{payment_id}/refunds        charged           401  403  404   202/404 202/404 202
POST   /payments/{payment_id}/refunds        charged_ordered   401  403  404   202     202/404 202
GET    /payments/{payment_id}/refunds        refunded          401  200  404   200/404 200/404 200
GET    /payments/{payment_id}/refunds        refunded_ordered  401  200  404   200     200/404 200

GET    /refunds                              refund            401  sees not   sees/not sees/not sees
GET    /refunds                              refund_ordered    401  sees not   sees    sees/not sees
GET    /refunds/{refund_id}                  refund            401  200  404   200/404 200/404 200
GET    /refunds/{refund_id}                  refund_ordered    401  200  404   200     200/404 200
GET    /refunds/{refund_id}/history          refund            401  200  404   200/404 200/404 200
GET    /refunds/{refund_id}/history          refund_ordered    401  200  404   200     200/404 200
POST   /refunds/{refund_id}/cancel           refund            401  403  404   200/404 200/404 200
POST   /refunds/{refund_id}/cancel           refund_ordered    401  403  404   200     200/404 200

POST   /payment-methods                      -                 401  201  201   201     201     201
GET    /test-methods                         -                 401  200  200   200     200     200
POST   /payment-methods                      named_owner       401  403  403   201/403 200/403 200/201
GET    /payment-methods                      method            401  sees not   not     not     not
GET    /payment-methods                      named_method      401  403  403   sees/403 sees/403 sees
GET    /payment-methods                      misnamed_method   401  403  403   not/403 not/403 not
GET    /payment-methods/{method_id}          method            401  200  404   404     404     200
GET    /payment-methods/{method_id}          named_method      401  403  403   200/403 200/403 200
GET    /payment-methods/{method_id}          misnamed_method   401  403  403   404/403 404/403 404
PATCH  /payment-methods/{method_id}          method            401  200  404   404     404     200
PATCH  /payment-methods/{method_id}          named_method      401  403  403   200/403 200/403 200
PATCH  /payment-methods/{method_id}          misnamed_method   401  403  403   404/403 404/403 404
DELETE /payment-methods/{method_id}          method            401  204  404   404     404     204
DELETE /payment-methods/{method_id}          named_method      401  403  403   204/403 204/403 204
DELETE /payment-methods/{method_id}          misnamed_method   401  403  403   404/403 404/403 404

POST   /webhook-endpoints                    -                 401  403  403   201     201     201
GET    /webhook-endpoints                    endpoint          401  403  403   sees    not     sees
GET    /webhook-endpoints/{endpoint_id}      endpoint          401  403  403   200     404     200
PATCH  /webhook-endpoints/{endpoint_id}      endpoint          401  403  403   200     404     200
DELETE /webhook-endpoints/{endpoint_id}      endpoint          401  403  403   204     404     204
GET    /webhook-endpoints/{endpoint_id}/deliveries  endpoint   401  403  403   200     404     200
GET    /webhook-deliveries/{delivery_id}     callback          401  200  404   200/404 200/404 200
GET    /webhook-deliveries/{delivery_id}     delivery          401  200  404   200     200/404 200
POST   /webhook-deliveries/{delivery_id}/resend     callback   401  202  404   202/404 202/404 202
POST   /webhook-deliveries/{delivery_id}/resend     delivery   401  202  404   202     202/404 202

POST   /webhooks/payment                     unsigned          401  401  401   401     401     401
POST   /webhooks/payment/{gateway}           unsigned          401  401  401   401     401     401
GET    /callback-secret                      -                 401  200  200   200     200     200
GET    /stats                                -                 401  403  403   403     403     200
GET    /verify/last                          -                 401  403  403   403     403     404
POST   /verify/run                           -                 401  403  403   403     403     202
GET    /verify/run                           -                 401  403  403   403     403     404

GET    /simulation/clock                     -                 401  200  200   200     200     200
POST   /simulation/clock/advance             -                 401  403  403   403     403     200

POST   /api-keys                             -                 401  403  403   403     403     201
GET    /api-keys                             api_key           401  403  403   403     403     sees
DELETE /api-keys/{key_id}                    api_key           401  403  403   403     403     204

POST   /simulation/rules                     -                 401  403  403   403     403     201
GET    /simulation/rules                     rule              401  403  403   403     403     sees
DELETE /simulation/rules                     rule              401  403  403   403     403     204
GET    /simulation/rules/{rule_id}           rule              401  403  403   403     403     200
DELETE /simulation/rules/{rule_id}           rule              401  403  403   403     403     204
POST   /simulation/rules/test                own_method        401  403  403   403     403     200
"""
ACTORS = ("none", "user", "other", "service", "other_s", "admin")
SCOPES = ("all", "created")
ROOT = ("/health", "/metrics", "/openapi.json", "/docs", "/dashboard")
# Whoever has the link of an approval page may open it.
LINKS = "/approve"
ON_THE_PLATFORM = {
    "/payments": "/payments",
    "/payment-methods": "/payments/methods",
    "/test-methods": "/payments/test-methods",
    "/refunds": "/payments/refunds",
}
# The user whom a request on such an object names in its query or its body.
NAMED = {"filtered": "1", "named_method": "1", "misnamed_method": "2"}
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


def rows() -> list[Row]:
    """The table, with a row for every address that an operation has."""
    found = []
    for line in TABLE.strip().splitlines()[1:]:
        if line:
            method, path, thing, *answers = line.split()
            found += [Row(method, address, thing, tuple(answers)) for address in addresses(path)]
    return found


def addresses(path: str) -> list[str]:
    if path == "/" or path.startswith(ROOT):
        return [path]
    if path.startswith(LINKS):
        return [path, f"{PLATFORM_PREFIX}{PAYMENTS}{path}"]
    noun = "/" + path.split("/")[1]
    platform = [PLATFORM_PREFIX + ON_THE_PLATFORM[noun] + path.removeprefix(noun)] if noun in ON_THE_PLATFORM else []
    return [PREFIX + path, *platform]


@pytest.fixture(params=SCOPES)
def scope(request: pytest.FixtureRequest) -> str:
    """Both values of SERVICE_SCOPE, one after the other."""
    value: str = request.param
    return value


@pytest.fixture
def settings(make_settings: Callable[..., Settings], scope: str) -> Settings:
    return make_settings(service_scope=scope)


async def clients(running_api: RunningApi) -> dict[str, httpx.AsyncClient]:
    return {
        "none": running_api.client(base=""),
        "user": running_api.user(1),
        "other": running_api.user(2),
        "service": running_api.service("shop"),
        "other_s": running_api.bearing(await created_key(running_api.admin(), name="stall")),
        "admin": running_api.admin("root"),
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


@pytest.mark.parametrize("row", rows(), ids=str)
async def test_every_client_gets_what_the_table_says(running_api: RunningApi, scope: str, row: Row) -> None:
    things = Things(running_api)
    answered = {}
    for actor, client in (await clients(running_api)).items():
        ids = await things.make(row.thing)
        client.base_url = httpx.URL(running_api.url)
        answer = await client.request(
            row.method,
            row.path.format(**ids),
            # The form of a page, and not even a right one.
            **({"data": {"result": "approve"}} if "link" in row.thing else {"json": things.body(row, ids)}),
            params={"user_id": NAMED[row.thing]} if row.thing in NAMED else None,
        )
        is_list = row.thing != "-" and "{" not in row.path and row.method == "GET" and answer.status_code == 200
        if is_list:
            [wanted] = ids.values()
            answered[actor] = "sees" if wanted in answer.text else "not"
        else:
            names_payment = answer.status_code == 409 and "payment_id" in answer.json()
            answered[actor] = f"{answer.status_code}{'+' if names_payment else ''}"
    assert answered == row.expected(scope)


def test_every_operation_has_a_row() -> None:
    runtime = open_runtime(load_settings(database_url="postgresql://127.0.0.1:1/x", redis_url="redis://127.0.0.1:1"))
    app = create_app(Api(runtime))
    served = set()
    for route in app.routes:
        # A router of FastAPI is a private class, which has the routes with their prefix.
        for found in [route] if isinstance(route, Route) else route.effective_route_contexts():  # type: ignore[attr-defined]
            served |= {(method, found.path_format) for method in (found.methods or set()) - {"HEAD"}}
    assert {(row.method, row.path) for row in rows()} == served


def test_without_a_token_everything_but_the_root_and_a_link_is_401() -> None:
    of_tokens = [row for row in rows() if row.path.startswith("/api/") and LINKS not in row.path]
    assert {row.answers[0] for row in of_tokens} == {"401"}


async def test_every_principal_has_a_callback_secret_of_its_own(running_api: RunningApi) -> None:
    with_token = [client for name, client in (await clients(running_api)).items() if name != "none"]
    with_token += [running_api.service("1"), running_api.admin("1")]  # a machine with a user's number is not that user
    secrets = [(await client.get("/callback-secret")).json()["secret"] for client in with_token]
    assert len(set(secrets)) == len(with_token)
