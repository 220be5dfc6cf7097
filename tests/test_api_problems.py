"""Whatever a client sends: never a 5xx, always a problem document with a code, and no card number in it."""

import asyncio
import json
import random
import string
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from api.problem_handlers import ERRORS_MAX
from api.problems import KINDS, Code
from api.schemas.problems import ProblemDocument
from shared.ids import new_id
from shared.runtime import Runtime, open_runtime
from tests.support.api_client import (
    VISA,
    RunningApi,
    accepted,
    added,
    card,
    opened,
    order,
    paypal,
    pointers,
    problem,
    row_counts,
    served,
)
from tests.support.servers import free_port

pytest_plugins = ["tests.support.api_fixtures"]

JSON = {"Content-Type": "application/json"}


async def posted(client: httpx.AsyncClient, path: str, body: bytes, **headers: str) -> httpx.Response:
    return await client.post(path, content=body, headers={**JSON, **headers})


# -- bodies


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize("path", ["/payments", "/payment-methods"])
async def test_a_body_that_is_no_json_is_400(user: httpx.AsyncClient, path: str) -> None:
    bodies = [
        b"{",
        b"}",
        b"nul",
        b"'a'",
        b"{a: 1}",
        b'{"a": 1,}',
        b'{"a": 1} {"b": 2}',
        b'{"a": "\x01"}',
        b'{"a": "\xff"}',
        b"\xff\xfe",
        b"\x00",
        b"[" * 65_000,
        b'{"a":' * 12_000,
        b"[" * 30_000 + b"]" * 30_000,
        b'{"amount": ' + b"9" * 5_000 + b"}",
        b'{"amount": 0x10}',
        b"<xml/>",
        b'{"a": "' + VISA.encode(),
    ]
    for body in bodies:
        answer = await posted(user, path, body)
        problem(answer, 400, "malformed_request")
        assert VISA not in answer.text


async def test_json_that_is_no_object_is_422(user: httpx.AsyncClient) -> None:
    for body in (b"null", b"[]", b"1", b'"x"', b"true", VISA.encode()):
        for path in ("/payments", "/payment-methods"):
            answer = await posted(user, path, body)
            assert pointers(answer) in ([""], ["/type"]), body
            assert VISA not in answer.text


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize("value", [b"1e999", b"1e400", b"-0.0", b"1E22", b"1" + b"0" * 22])
async def test_numbers_that_are_no_amounts_are_422(user: httpx.AsyncClient, value: bytes) -> None:
    body = b'{"order_id": "1", "payment_method_id": "x", "amount": %b}' % value
    assert pointers(await posted(user, "/payments", body)) == ["/amount"]


async def test_lone_surrogates_are_422_wherever_they_are(user: httpx.AsyncClient) -> None:
    valid = order(str(new_id()))
    for member in ("order_id", "currency", "description", "callback_url", "payment_method_id"):
        body = json.dumps({**valid, member: "\ud800"}).encode()
        assert pointers(await posted(user, "/payments", body)) == [f"/{member}"]
    for metadata in ({"\ud800": "x"}, {"x": "\udfff"}, {"\ud800": 1}):
        body = json.dumps({**valid, "metadata": metadata}).encode()
        assert all(place.startswith("/metadata") for place in pointers(await posted(user, "/payments", body)))
    problem(await posted(user, "/payments", json.dumps({**valid, "\ud800": 1}).encode()), 422, "validation_error")
    raw = json.dumps({**valid, "description": "?"}).encode().replace(b"?", b"\xed\xa0\x80")  # no UTF-8
    problem(await posted(user, "/payments", raw), 400, "malformed_request")
    body = json.dumps(card(cardholder_name="\ud800")).encode()
    assert pointers(await posted(user, "/payment-methods", body)) == ["/payment_details/cardholder_name"]
    body = json.dumps(card(type="\ud800")).encode()
    assert pointers(await posted(user, "/payment-methods", body)) == ["/type"]


async def test_a_member_of_metadata_is_named_for_its_name_and_for_its_value(user: httpx.AsyncClient) -> None:
    for metadata, pointer, reason in (
        ({"k" * 41: "x"}, "/metadata/" + "k" * 41, "has a name that must have at most 40 characters"),
        ({"a\n": "x"}, "/metadata/a\n", "has a name that must not contain control characters"),
        ({"[key]" * 9: "x"}, "/metadata/" + "[key]" * 9, "has a name that must have at most 40 characters"),
        ({"[key]": "x" * 501}, "/metadata/[key]", "must have at most 500 characters"),
        ({"a": 1}, "/metadata/a", "must be a string"),
    ):
        answer = await user.post("/payments", json=order(str(new_id()), metadata=metadata))
        assert problem(answer, 422, "validation_error")["errors"] == [
            {"pointer": pointer, "detail": f'"{pointer.removeprefix("/metadata/")}" {reason}.'}
        ]


async def test_a_card_number_in_a_text_is_refused_and_not_repeated(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    for path, body, pointer in (
        ("/payments", order(method_id, description=f"for {VISA}"), "/description"),
        ("/payment-methods", card(display_name="4242 4242 4242 4242"), "/display_name"),
        ("/payment-methods", paypal(display_name=VISA), "/display_name"),
        ("/payment-methods", card(cardholder_name=f"{VISA} Jane"), "/payment_details/cardholder_name"),
    ):
        answer = await user.post(path, json=body)
        assert pointers(answer) == [pointer]
        # Not of the whole answer: its correlation id may have any four digits.
        assert "4242" not in str(answer.json()["errors"])
        assert VISA not in answer.text
    changed = await user.patch(f"/payment-methods/{method_id}", json={"display_name": VISA})
    assert problem(changed, 422, "validation_error")["errors"] == [
        {
            "pointer": "/display_name",
            "detail": '"display_name" must not contain a card number: 13 to 19 digits with a valid check digit.',
        }
    ]
    for text in ("order 12345678901234567890", "4242424242424241", "call 0123 456 789"):
        assert (await user.post("/payments", json=order(method_id, description=text))).json()["description"] == text


async def test_a_plus_sign_that_is_not_escaped_is_named(user: httpx.AsyncClient) -> None:
    for moment in ("2026-11-27T10:00:00+02:00", "2026-11-27T10:00:00.5+02:00", "2026-11-27 10:00+02:00"):
        answer = await user.get(f"/payments?created_after={moment}")
        detail = '"created_after" has a blank before its offset: write the plus sign as %2B.'
        expected = [{"pointer": "/query/created_after", "detail": detail}]
        assert problem(answer, 422, "validation_error")["errors"] == expected
        assert (await user.get("/payments", params={"created_after": moment})).status_code == 200


async def test_a_flood_of_wrong_members_gets_a_short_answer(user: httpx.AsyncClient) -> None:
    flood = {str(n): 1 for n in range(6000)}
    for body in (flood, order("x", metadata=flood), order("x", metadata={str(n): "x" for n in range(5000)})):
        answer = await user.post("/payments", json=body)
        assert 1 <= len(pointers(answer)) <= ERRORS_MAX
        assert len(answer.content) < 8_000


async def test_long_names_are_shortened_and_card_numbers_hidden_where_a_place_is_named(user: httpx.AsyncClient) -> None:
    for name in (VISA, f"x {VISA} x", "4242-4242 4242-4242"):
        for body in ({name: 1}, order("x", metadata={name: 1}), {"type": name}):
            for path in ("/payments", "/payment-methods"):
                answer = await user.post(path, json=body)
                problem(answer, 422, "validation_error")
                assert "4242" not in str(answer.json()["errors"])
    answer = await user.post("/payments", json={"x" * 60_000: 1})
    assert len(answer.content) < 1_000


# -- types and sizes


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/xml",
        "x",
        "",
        "json",
        "text/json",
        "application/json, text/plain",
    ],
)
async def test_a_body_of_another_type_is_415(running_api: RunningApi, user: httpx.AsyncClient, media_type: str) -> None:
    method_id = await added(user)
    for method, path, body in (
        ("POST", "/payments", order(method_id)),
        ("POST", "/payment-methods", card()),
        ("PATCH", f"/payment-methods/{method_id}", {"display_name": "x"}),
        ("POST", "/payments", VISA),
    ):
        content = json.dumps(body).encode()
        answer = await user.request(method, path, content=content, headers={"Content-Type": media_type})
        problem(answer, 415, "unsupported_media_type")
        assert VISA not in answer.text
    answer = await user.post("/payments", content=json.dumps(order(method_id)).encode())  # no type at all
    problem(answer, 415, "unsupported_media_type")
    assert "payments" not in await row_counts(running_api.database)


@pytest.mark.parametrize("media_type", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON"])
async def test_json_is_taken_however_its_type_is_written(user: httpx.AsyncClient, media_type: str) -> None:
    body = json.dumps(order(await added(user))).encode()
    assert (await user.post("/payments", content=body, headers={"Content-Type": media_type})).status_code == 202


# -- addresses and methods


async def test_what_is_not_there_is_404_and_what_does_not_go_is_405(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    for path in (
        "/",
        "/x",
        "/payments/",
        "/payments/a/b/c",
        "/payments/%2e%2e/x",
        "/payment_methods",
        "/../health",
        "//",
    ):
        problem(await user.get(path), 404, "not_found")
    anybody = running_api.client(base="")
    for path in ("/payments", "/api/v1", "/api/v2/payments", "/admin", f"/{VISA}"):
        answer = await anybody.get(path)
        problem(answer, 404, "not_found")
        assert VISA not in answer.text
    for method, path, allowed in (
        ("PUT", "/payments", "GET, HEAD, POST"),
        ("DELETE", f"/payments/{new_id()}", "GET, HEAD"),
        ("GET", f"/payments/{new_id()}/cancel", "POST"),
        ("TRACE", "/payments", "GET, HEAD, POST"),
        ("OPTIONS", "/payment-methods", "GET, HEAD, POST"),
        ("POST", f"/payment-methods/{new_id()}", "GET, HEAD, PATCH, DELETE"),
    ):
        answer = await user.request(method, path)
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == allowed
    assert (await user.head(f"/payments/{new_id()}/cancel")).status_code == 405


async def test_the_problem_names_where_it_happened_as_a_uri(user: httpx.AsyncClient) -> None:
    answer = await user.get("/payments/a%00b%20%C3%BC")
    assert problem(answer, 404, "not_found")["instance"] == "/api/v1/payments/a%00b%20%C3%BC"
    answer = await user.get(f"/payment-methods/{VISA}?card={VISA}")
    assert VISA not in answer.text
    ProblemDocument.model_validate(answer.json())


# -- correlation ids


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize("sent", ["x", "a" * 128, "!~", "01HZ-order:4711/7", "0199f0a2-7d7e-7c3a-9a51-0d4b1f2f6f00"])
async def test_a_correlation_id_is_accepted_and_answered(
    running_api: RunningApi, user: httpx.AsyncClient, sent: str
) -> None:
    for path in ("/payments", "/nothing", f"/payments/{new_id()}"):
        assert (await user.get(path, headers={"X-Correlation-ID": sent})).headers["x-correlation-id"] == sent
    answer = await running_api.client(base="").get("/health", headers={"X-Correlation-ID": sent})
    assert answer.headers["x-correlation-id"] == sent


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize("sent", ["", "a" * 129, "a b", "ü", "\x7f", "a\tb", "x" * 5000])
async def test_a_correlation_id_that_is_none_is_replaced(user: httpx.AsyncClient, sent: str) -> None:
    answer = await user.get("/payments", headers={b"X-Correlation-ID": sent.encode("latin-1")})
    made = answer.headers["x-correlation-id"]
    assert answer.status_code == 200
    assert made != sent
    assert len(made) == 36


async def test_every_request_has_a_correlation_id_of_its_own_that_goes_with_the_payment(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    made = {(await user.get("/payments")).headers["x-correlation-id"] for _ in range(3)}
    assert len(made) == 3
    answer = await user.post("/payments", json=order(await added(user)), headers={"X-Correlation-ID": "order-4711"})
    assert answer.headers["x-correlation-id"] == "order-4711"
    async with running_api.database.read() as connection:
        found = await connection.exec_driver_sql("SELECT correlation_id FROM payments")
        assert found.scalars().all() == ["order-4711"]


# -- through a real connection


async def spoken(port: int, request: bytes) -> bytes:
    """What the server says to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await writer.drain()
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def test_the_real_server_survives_what_no_client_library_sends(runtime: Runtime) -> None:
    async with served(runtime) as running_api:
        port = int(running_api.url.rpartition(":")[2])
        bearer = running_api.user().headers["authorization"].encode()
        start = b"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: " + bearer + b"\r\n"
        get = b"GET /api/v1/payments HTTP/1.1\r\nConnection: close\r\nAuthorization: " + bearer + b"\r\n"
        requests = [
            b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            start + b"Content-Length: -1\r\n\r\n",
            start + b"Content-Length: x\r\n\r\n",
            start + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
            start + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            start + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
            start + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{",  # and hangs up
            start + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            start + b"Content-Encoding: gzip\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
            start + b"Idempotency-Key: \xff\xfe\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            start + b"X-Correlation-ID: a\r\n b\r\nContent-Length: 0\r\n\r\n",
            get + b"Host: [\r\n\r\n",
            get + b"Host: \xff\r\n\r\n",
            get + b"Host: a b\r\n\r\n",
            get + b"Host: x:99999\r\nX-Correlation-ID: a\x01b\r\n\r\n",
            get.replace(b"/payments ", b"/payments?limit=\xff ") + b"Host: x\r\n\r\n",
            get.replace(b"/payments ", b"/payments/\xff\xfe ") + b"Host: x\r\n\r\n",
            get.replace(b"/payments ", b"/payments/%ff%00%0d%0aX-Evil:%201 ") + b"Host: x\r\n\r\n",
            get.replace(b"/api/v1/payments ", b"http://evil.example/api/v1/payments/x ") + b"Host: x\r\n\r\n",
            get.replace(b"/api/v1/payments ", b"* ") + b"Host: x\r\n\r\n",
            get.replace(b"/payments ", b"/payments/" + b"a" * 60_000 + b" ") + b"Host: x\r\n\r\n",
            get + b"X-A: " + b"a" * 70_000 + b"\r\n\r\n",
            get + b"Prefer: wait=99999999999999999999\r\nIf-None-Match: \xff\r\nHost: x\r\n\r\n",
        ]
        answers = await asyncio.gather(*(spoken(port, request) for request in requests))
        for request, answer in zip(requests, answers, strict=True):
            status = answer.split(b" ", 2)[1] if answer else b"400"  # or no answer: the client had gone
            assert not status.startswith(b"5"), (request[:200], answer[:300])
            assert b"x-evil" not in answer.lower().partition(b"\r\n\r\n")[0]
        assert (await running_api.user().get("/payments")).status_code == 200


# -- when something is wrong with us


async def test_without_a_database_everything_that_needs_it_is_503_and_says_when_to_come_back(
    make_settings: Callable[..., Any], backend: str, tmp_path: Any
) -> None:
    folder = tmp_path / "no.db"
    folder.mkdir()
    url = f"sqlite:///{folder}" if backend == "sqlite" else f"postgresql://postgres@127.0.0.1:{free_port()}/x"
    runtime = open_runtime(make_settings(database_url=url))
    async with opened(runtime) as running_api:
        for client, method, path, body in (
            (running_api.user(), "POST", "/payments", order(str(new_id()))),
            (running_api.user(), "GET", "/payments", None),
            (running_api.user(), "GET", f"/payments/{new_id()}", None),
            (running_api.user(), "POST", "/payment-methods", card()),
            (running_api.service(), "GET", "/webhook-endpoints", None),
        ):
            answer = await client.request(method, path, json=body)
            problem(answer, 503, "unavailable")
            assert answer.headers["retry-after"] == "1"
            assert "sqlite" not in answer.text.lower()
        ready = await running_api.client(base="").get("/health/ready")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert ready.json()["checks"]["database"] == "not_ready"
        health = await running_api.client(base="").get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "healthy")
    await runtime.close()


async def test_without_redis_the_service_accepts_and_is_ready(
    runtime: Runtime, make_settings: Callable[..., Any]
) -> None:
    settings = make_settings(redis_url=f"redis://127.0.0.1:{free_port()}/0")
    alone = open_runtime(settings)
    async with opened(alone) as running_api:
        await accepted(running_api.user(), order(await added(running_api.user())))
        ready = await running_api.client(base="").get("/health/ready")
        assert ready.status_code == 200
        assert ready.json() == {
            "ready": True,
            "checks": {
                "database": "ready",
                "redis": "not_ready",
                "auth_service": "not_configured",
                "order_service": "not_configured",
            },
        }
    await alone.close()


async def test_health_readiness_and_metrics(running_api: RunningApi) -> None:
    anybody = running_api.client(base="")
    health = (await anybody.get("/health")).json()
    assert set(health) == {"status", "timestamp", "version", "uptime"}
    assert health["uptime"] >= 0
    ready = await anybody.get("/health/ready")
    assert (ready.status_code, ready.json()["checks"]["redis"]) == (200, "ready")
    await running_api.user().post("/payments", json=order(await added(running_api.user())))
    metrics = await anybody.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    for name in ("payments_accepted_total", "payments_http_requests_total{", "payments_http_request_seconds_bucket{"):
        assert name in metrics.text
    assert 'status="202"' in metrics.text


async def test_the_labels_of_metrics_are_not_the_clients_to_invent(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    for number in range(20):
        await user.get(f"/payments/secret-{number}")
        await user.get(f"/secret-{number}")
        await user.request("DELETE", f"/secret-{number}")
    assert "secret-" not in (await running_api.client(base="").get("/metrics")).text


# -- at random


def hostile_text(rng: random.Random) -> str:
    alphabet = rng.choice(
        [string.printable, string.digits, "\0\x01\x1f\x7f\x85\u2028", "äß漢🎉\u202e", "'\";--<>&{}%$\\"]
    )
    return "".join(rng.choice(alphabet) for _ in range(rng.choice([0, 1, 3, 12, 16, 40, 65, 300])))


ODD_VALUES: list[Any] = [
    *[None, True, False, [], {}, 0, -1, 1, 50, 1585, 10**22, -(10**22), 2**31, 2**63, 2**63 - 1],
    *[0.0, -0.0, 1.5, 1e308, float("nan"), float("inf"), "\ud800", "\udfff\ud800", "a\0b", VISA, "x" * 3000],
    *["USD", "PAYPAL", "CREDIT_CARD", "payment.failed", "https://x.example/", "http://10.0.0.1/", [VISA], {VISA: VISA}],
]


def hostile_value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.random()
    if depth < 4 and kind < 0.1:
        return [hostile_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if depth < 4 and kind < 0.2:
        return {hostile_text(rng): hostile_value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return hostile_text(rng) if kind < 0.4 else rng.choice(ODD_VALUES)


def mutated(rng: random.Random, body: dict[str, Any]) -> Any:
    """`body` with something else in it."""
    changed = json.loads(json.dumps(body))
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        target = changed
        while isinstance(target, dict) and target:
            name = rng.choice(list(target))
            if not (isinstance(target[name], dict) and rng.random() < 0.7):
                break
            target = target[name]
        if isinstance(target, dict):
            name = rng.choice([*target, hostile_text(rng)])
            target[name] = hostile_value(rng)
            if rng.random() < 0.2:
                del target[name]
    return changed if rng.random() < 0.95 else hostile_value(rng)


def hostile_requests(seed: int, count: int, ids: list[str]) -> Iterator[dict[str, Any]]:
    rng = random.Random(seed)  # noqa: S311 - the same at every run
    bodies: dict[str, dict[str, Any]] = {
        "/payments": order(
            ids[0], metadata={"a": "b"}, callback_url="https://x.example/", description="d", currency="EUR"
        ),
        "/payment-methods": card(is_default=True, display_name="d", cardholder_name="c"),
        "/webhook-endpoints": {"name": "n", "url": "https://x.example/", "event_types": ["payment.failed"]},
    }
    single = ["/payments/{}", "/payments/{}/status", "/payments/{}/history", "/payments/{}/deliveries",
              "/payment-methods/{}", "/webhook-endpoints/{}", "/webhook-endpoints/{}/deliveries"]  # fmt: skip
    for number in range(count):
        headers = [(b"content-type", rng.choice([b"application/json"] * 9 + [b"text/plain"]))]
        for name in ("Idempotency-Key", "Prefer", "If-None-Match", "X-Correlation-ID", "Content-Language"):
            if rng.random() < 0.2:
                text = rng.choice([hostile_text(rng), "wait=0", f"k{number}", '"1"', "*", "wait=99999999999"])
                kept = "".join(c for c in text if c not in "\r\n\0").strip()
                headers.append((name.encode(), kept.encode("latin-1", "replace")))
        headers = [(name, value.replace(b"wait=", b"wait =x")) for name, value in headers]  # no request waits here
        request: dict[str, Any] = {"headers": headers}
        match rng.randrange(10):
            case 0 | 1 | 2 | 3 | 4:
                path = rng.choice(list(bodies))
                request |= {"method": "POST", "url": path}
                request["content"] = json.dumps(mutated(rng, bodies[path])).encode("utf-8", "replace")
                if rng.random() < 0.1:
                    cut = rng.randrange(1 + len(request["content"]))
                    request["content"] = request["content"][:cut] + bytes(rng.randrange(256) for _ in range(3))
            case 5 | 6:
                names = ["limit", "status", "order_id", "user_id", "created_after", "created_before", "cursor", "x"]
                values = ["20", "PENDING", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "o1", "A" * 60]
                params = [
                    (rng.choice(names), rng.choice([*values, hostile_text(rng)])) for _ in range(rng.randrange(4))
                ]
                request |= {"method": "GET", "url": rng.choice(["/payments", *single]).format(rng.choice(ids))}
                request["params"] = params
            case 7:
                path = rng.choice(["/payment-methods/{}", "/webhook-endpoints/{}"]).format(rng.choice(ids))
                change = {
                    "display_name": "d",
                    "is_default": True,
                    "enabled": True,
                    "name": "n",
                    "url": "https://x.example",
                }
                request |= {"method": "PATCH", "url": path}
                request["content"] = json.dumps(mutated(rng, change)).encode("utf-8", "replace")
            case 8:
                path = rng.choice(["/payments/{}/cancel", "/webhook-deliveries/{}/resend"])
                request |= {"method": "POST", "url": path.format(rng.choice(ids)), "content": b"{}"}
            case _:
                wild = "".join(c for c in hostile_text(rng) if c.isprintable() and c not in "\\?#")
                path = f"/{wild}" if rng.random() < 0.5 else rng.choice(single).format(wild)
                method = rng.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
                request |= {"method": method, "url": path, "content": b"{}"}
        yield request


async def test_fifteen_hundred_hostile_requests_get_no_5xx_and_hear_no_card_number(
    running_api: RunningApi, backend: str
) -> None:
    clients = [running_api.user(), running_api.service(), running_api.admin()]
    ids = [await added(client) for client in clients]
    ids.append((await accepted(clients[0], order(ids[0])))["id"])
    ids += [str(new_id()), "x"]
    codes: set[str] = set()

    async def send(client: httpx.AsyncClient, request: dict[str, Any]) -> None:
        sent = client.build_request(**request)
        answer = await client.send(sent)
        assert answer.status_code < 500, (request, answer.text)
        assert answer.headers["x-correlation-id"]
        if answer.status_code >= 400 and sent.method != "HEAD":
            document = problem(answer, answer.status_code, answer.json()["code"])
            ProblemDocument.model_validate(document)
            assert KINDS[Code(document["code"])].status == answer.status_code
            codes.add(document["code"])
            answered = {**document, "correlation_id": ""}
            assert VISA not in str(answered), request
        assert len(answer.content) < 200_000

    requests = list(hostile_requests(len(backend), 1500, ids))
    for start in range(0, len(requests), 40):
        batch = enumerate(requests[start : start + 40], start)
        await asyncio.gather(*(send(clients[number % 3], request) for number, request in batch))
    assert codes >= {
        "validation_error",
        "malformed_request",
        "not_found",
        "method_not_allowed",
        "unsupported_media_type",
    }
    assert (await running_api.client(base="").get("/health/ready")).status_code == 200
