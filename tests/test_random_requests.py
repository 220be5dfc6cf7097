"""Requests drawn at random: never a 5xx, always a problem document with a code, and no card number in it."""

import asyncio
import json
import random
import string
from collections.abc import Iterator
from typing import Any

import httpx

from api.problems import KINDS, Code
from api.schemas.problems import ProblemDocument
from shared.ids import new_id
from tests.support.api_client import VISA, RunningApi, accepted, added, card, order, problem

pytest_plugins = ["tests.support.api_fixtures"]


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
