"""Authorization: every operation and every kind of client, in one table. An operation without a row fails."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from api.main import create_app
from api.paths import PLATFORM_PREFIX, PREFIX
from api.state import Api
from shared.config.settings import load_settings
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, added, card, order

pytest_plugins = ["tests.support.api_fixtures"]

# What each client is answered. The objects are: a payment, method, callback or delivery of `user` (the payment created
# by them, or by `service` for them), or an endpoint of `service`. `sees` and `not` are 200 with and without the object
# in the list. 404 is the answer to whatever is not theirs: not even that it exists is shown. (An admin's 404 for the
# last verification says that there was none.)
TABLE = """
operation                                    object           none user other service other_s admin

GET    /health                               -                 200  200  200   200     200     200
GET    /health/ready                         -                 200  200  200   200     200     200
GET    /metrics                              -                 200  200  200   200     200     200
GET    /openapi.json                         -                 200  200  200   200     200     200
GET    /                                     -                 307  307  307   307     307     307
GET    /docs                                 -                 200  200  200   200     200     200
GET    /docs/{name}                          file              200  200  200   200     200     200

POST   /payments                             own_method        401  202  422   422     422     422
POST   /payments                             named_user        401  403  403   202     202     202
GET    /payments                             payment           401  sees not   not     not     sees
GET    /payments                             ordered           401  sees not   sees    not     sees
GET    /payments                             filtered          401  403  403   403     403     sees
GET    /payments/{payment_id}                payment           401  200  404   404     404     200
GET    /payments/{payment_id}                ordered           401  200  404   200     404     200
GET    /payments/{payment_id}/status         payment           401  200  404   404     404     200
GET    /payments/{payment_id}/status         ordered           401  200  404   200     404     200
GET    /payments/{payment_id}/history        payment           401  200  404   404     404     200
GET    /payments/{payment_id}/history        ordered           401  200  404   200     404     200
GET    /payments/{payment_id}/deliveries     payment           401  200  404   404     404     200
GET    /payments/{payment_id}/deliveries     ordered           401  200  404   200     404     200
POST   /payments/{payment_id}/cancel         payment           401  200  404   404     404     200
POST   /payments/{payment_id}/cancel         ordered           401  200  404   200     404     200

POST   /payment-methods                      -                 401  201  201   201     201     201
GET    /test-methods                         -                 401  200  200   200     200     200
GET    /payment-methods                      method            401  sees not   not     not     not
GET    /payment-methods/{method_id}          method            401  200  404   404     404     200
PATCH  /payment-methods/{method_id}          method            401  200  404   404     404     200
DELETE /payment-methods/{method_id}          method            401  204  404   404     404     204

POST   /webhook-endpoints                    -                 401  403  403   201     201     201
GET    /webhook-endpoints                    endpoint          401  403  403   sees    not     sees
GET    /webhook-endpoints/{endpoint_id}      endpoint          401  403  403   200     404     200
PATCH  /webhook-endpoints/{endpoint_id}      endpoint          401  403  403   200     404     200
DELETE /webhook-endpoints/{endpoint_id}      endpoint          401  403  403   204     404     204
GET    /webhook-endpoints/{endpoint_id}/deliveries  endpoint   401  403  403   200     404     200
GET    /webhook-deliveries/{delivery_id}     callback          401  200  404   404     404     200
GET    /webhook-deliveries/{delivery_id}     delivery          401  200  404   200     404     200
POST   /webhook-deliveries/{delivery_id}/resend     callback   401  202  404   404     404     202
POST   /webhook-deliveries/{delivery_id}/resend     delivery   401  202  404   202     404     202

GET    /callback-secret                      -                 401  200  200   200     200     200
GET    /stats                                -                 401  403  403   403     403     200
GET    /verify/last                          -                 401  403  403   403     403     404
"""
ACTORS = ("none", "user", "other", "service", "other_s", "admin")
ROOT = ("/health", "/metrics", "/openapi.json", "/docs")
ON_THE_PLATFORM = {
    "/payments": "/payments",
    "/payment-methods": "/payments/methods",
    "/test-methods": "/payments/test-methods",
}


@dataclass(frozen=True, slots=True)
class Row:
    """What each client is answered to one operation on one object, at one of its addresses."""

    method: str
    path: str
    thing: str
    answers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.thing}"


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
    noun = "/" + path.split("/")[1]
    platform = [PLATFORM_PREFIX + ON_THE_PLATFORM[noun] + path.removeprefix(noun)] if noun in ON_THE_PLATFORM else []
    return [PREFIX + path, *platform]


def clients(running_api: RunningApi) -> dict[str, httpx.AsyncClient]:
    return {
        "none": running_api.client(base=""),
        "user": running_api.user(1),
        "other": running_api.user(2),
        "service": running_api.service("shop"),
        "other_s": running_api.service("stall"),
        "admin": running_api.admin("root"),
    }


class Things:
    """Makes what an operation is tried on; every try gets a new one."""

    def __init__(self, running_api: RunningApi) -> None:
        self.user = running_api.user(1)
        self.service = running_api.service("shop")
        self._number = 0

    async def make(self, thing: str) -> dict[str, str]:
        """The ids of a new thing."""
        maker: Callable[[], Any] | None = getattr(self, thing, None)
        return await maker() if maker else {}

    async def method(self) -> dict[str, str]:
        return {"method_id": await added(self.user)}

    async def payment(self, **changes: Any) -> dict[str, str]:
        answer = await self.user.post("/payments", json=order(await added(self.user), **changes))
        return {"payment_id": answer.json()["id"]}

    async def ordered(self) -> dict[str, str]:
        body = order(await added(self.user), user_id="1")
        return {"payment_id": (await self.service.post("/payments", json=body)).json()["id"]}

    filtered = payment
    own_method = named_user = method

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

    def body(self, row: Row, ids: dict[str, str]) -> dict[str, Any] | None:
        """What is sent: right in everything but, perhaps, its sender."""
        if row.method not in {"POST", "PATCH"} or row.path.endswith(("/cancel", "/resend")):
            return None
        if row.method == "PATCH":
            return {"name": "n"} if "endpoint" in row.path else {"display_name": "n"}
        if "endpoint" in row.path:
            return self.endpoint_body()
        if "method" in row.path:
            return card()
        return order(ids["method_id"], **({"user_id": "1"} if row.thing == "named_user" else {}))


@pytest.mark.parametrize("row", rows(), ids=str)
async def test_every_client_gets_what_the_table_says(running_api: RunningApi, row: Row) -> None:
    things = Things(running_api)
    answered = []
    for client in clients(running_api).values():
        ids = await things.make(row.thing)
        client.base_url = httpx.URL(running_api.url)
        answer = await client.request(
            row.method,
            row.path.format(**ids),
            json=things.body(row, ids),
            params={"user_id": "1"} if row.thing == "filtered" else None,
        )
        is_list = row.thing != "-" and "{" not in row.path and row.method == "GET" and answer.status_code == 200
        [wanted] = ids.values() if is_list else [""]
        answered.append(("sees" if wanted in answer.text else "not") if is_list else str(answer.status_code))
    assert dict(zip(ACTORS, answered, strict=True)) == dict(zip(ACTORS, row.answers, strict=True))


def test_every_operation_has_a_row() -> None:
    runtime = open_runtime(load_settings(database_url="postgresql://127.0.0.1:1/x", redis_url="redis://127.0.0.1:1"))
    app = create_app(Api(runtime))
    served = set()
    for route in app.routes:
        # A router of FastAPI is a private class, which has the routes with their prefix.
        for found in [route] if isinstance(route, Route) else route.effective_route_contexts():  # type: ignore[attr-defined]
            served |= {(method, found.path) for method in (found.methods or set()) - {"HEAD"}}
    assert {(row.method, row.path) for row in rows()} == served


def test_without_a_token_everything_but_the_root_is_401() -> None:
    assert {row.answers[0] for row in rows() if row.path.startswith("/api/")} == {"401"}


async def test_every_principal_has_a_callback_secret_of_its_own(running_api: RunningApi) -> None:
    with_token = [client for name, client in clients(running_api).items() if name != "none"]
    with_token += [running_api.service("1"), running_api.admin("1")]  # a machine with a user's number is not that user
    secrets = [(await client.get("/callback-secret")).json()["secret"] for client in with_token]
    assert len(set(secrets)) == len(with_token)
