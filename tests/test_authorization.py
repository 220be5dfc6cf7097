"""Authorization: every operation and every kind of client, in one table. An operation without a row fails."""

from collections.abc import Callable

import httpx
import pytest
from starlette.routing import Route

from api.main import create_app
from api.paths import PAYMENTS, PLATFORM_PREFIX, PREFIX
from api.state import Api
from shared.config.settings import Settings, load_settings
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, created_key
from tests.support.authorized_things import Row, Things

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
