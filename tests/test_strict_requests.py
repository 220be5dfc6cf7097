"""What is refused of a request before its operation sees it: repeated lines and members, other codings, strangers."""

import gzip
import json
from typing import Any

import httpx
import pytest

from shared.ids import new_id
from tests.support.api_client import MASTERCARD, VISA, RunningApi, accepted, added, order
from tests.support.stored import row_counts

pytest_plugins = ["tests.support.api_fixtures"]
# Nothing here depends on the database.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

JSON = {"Content-Type": "application/json"}
PATHS = ("/payments", "/payment-methods", "/webhook-endpoints")


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()
    assert (answer.status_code, found["code"]) == (status, code), answer.text
    return found


# -- who asks comes first


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b'{"a": 1, "a": 2}', b'{"a": NaN}'])
async def test_a_stranger_is_401_whatever_the_body_is(running_api: RunningApi, path: str, content: bytes) -> None:
    for headers in (JSON, {"Content-Type": "text/plain"}, {**JSON, "Content-Encoding": "gzip"}):
        answer = await running_api.client().post(path, content=content, headers=headers)
        problem(answer, 401, "invalid_token")


# -- one reading of a body


@pytest.mark.parametrize("name", ["amount", "order_id", "payment_method_id", "currency", "metadata"])
async def test_a_member_that_comes_twice_is_400(running_api: RunningApi, user: httpx.AsyncClient, name: str) -> None:
    body = json.dumps({**order(await added(user)), "currency": "USD", "metadata": {"a": "1"}})
    twice = body[:-1] + f', "{name}": {json.dumps(json.loads(body)[name])}}}'
    found = problem(await user.post("/payments", content=twice, headers=JSON), 400, "malformed_request")
    assert f'"{name}" twice' in found["detail"]
    assert "payments" not in await row_counts(running_api.database)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/payments", '{"metadata": {"a": "1", "a": "2"}}'),
        ("/payments", '{"a\\u006dount": 1, "amount": 2}'),
        ("/payment-methods", f'{{"payment_details": {{"card_number": "{VISA}", "card_number": "{MASTERCARD}"}}}}'),
        ("/payment-methods", '{"type": "CREDIT_CARD", "type": "PAYPAL"}'),
        ("/webhook-endpoints", '{"url": "https://a.example", "url": "https://b.example"}'),
        ("/payments", f'{{"{VISA}": 1, "{VISA}": 2}}'),
        ("/payments", '{"\\ud800": 1, "\\ud800": 2}'),
    ],
)
async def test_a_member_may_come_once_at_every_depth(service: httpx.AsyncClient, path: str, content: str) -> None:
    answer = await service.post(path, content=content, headers=JSON)
    assert "twice" in problem(answer, 400, "malformed_request")["detail"]
    assert VISA not in answer.text


async def test_a_patch_is_read_as_strictly(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    for content, status in (
        (b'{"display_name": "a", "display_name": "b"}', 400),
        (b"", 400),
        (b'{"x": Infinity}', 400),
    ):
        answer = await user.patch(f"/payment-methods/{method_id}", content=content, headers=JSON)
        problem(answer, status, "malformed_request")


@pytest.mark.parametrize(
    "content",
    [
        b"", b" ", b"{", b"[1,]", b"{}{}", b"// {}", b'{"amount": NaN}', b'{"amount": -Infinity}',
        b'{"a": "\xe9"}', '{"a": 1}'.encode("utf-16"), '{"a": 1}'.encode("utf-16-le"), '{"a": 1}'.encode("utf-16-be"),
        '{"a": 1}'.encode("utf-32"), b"[" * 30_000, b'{"amount": ' + b"9" * 5_000 + b"}", b'{"a": "\x00"}',
    ],
)  # fmt: skip
async def test_what_is_no_json_in_utf_8_is_400(user: httpx.AsyncClient, content: bytes) -> None:
    problem(await user.post("/payments", content=content, headers=JSON), 400, "malformed_request")


async def test_a_byte_order_mark_is_ignored(user: httpx.AsyncClient) -> None:
    content = b"\xef\xbb\xbf" + json.dumps(order(await added(user))).encode()
    assert (await user.post("/payments", content=content, headers=JSON)).status_code == 202


# -- a change


@pytest.mark.parametrize("name", ["name", "url", "event_types", "enabled"])
async def test_null_in_a_change_of_an_endpoint_is_422(service: httpx.AsyncClient, name: str) -> None:
    new = {"name": "a", "url": "http://127.0.0.1:9/", "event_types": ["payment.failed"]}
    endpoint = (await service.post("/webhook-endpoints", json=new)).json()
    path = f"/webhook-endpoints/{endpoint['id']}"
    found = problem(await service.patch(path, json={name: None}), 422, "validation_error")
    assert [error["pointer"] for error in found["errors"]] == [f"/{name}"]
    for same in ({}, {name: endpoint[name]}, {**new, "enabled": True, "event_types": ["payment.failed"] * 2}):
        unchanged = (await service.patch(path, json=same)).json()
        assert unchanged["updated_at"] == endpoint["updated_at"]
    changed = (await service.patch(path, json={"enabled": False, "name": "b"})).json()
    assert changed["updated_at"] > endpoint["updated_at"]
    assert (await service.patch(path, json={"enabled": False})).json() == changed


@pytest.mark.parametrize("name", ["display_name", "is_default"])
async def test_null_in_a_change_of_a_method_is_422(user: httpx.AsyncClient, name: str) -> None:
    path = f"/payment-methods/{await added(user)}"
    method = (await user.get(path)).json()
    found = problem(await user.patch(path, json={name: None}), 422, "validation_error")
    assert [error["pointer"] for error in found["errors"]] == [f"/{name}"]
    for same in ({}, {"is_default": True}, {"display_name": method["display_name"]}):
        assert (await user.patch(path, json=same)).json() == method
    assert (await user.patch(path, json={"display_name": "x"})).json() == {**method, "display_name": "x"}


# -- codings


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "br", "zstd", "gzip, identity", "identity, gzip", "x"])
async def test_a_coded_body_is_415_and_says_what_is_accepted(user: httpx.AsyncClient, coding: str) -> None:
    body = gzip.compress(json.dumps(order(await added(user))).encode())
    answer = await user.post("/payments", content=body, headers={**JSON, "Content-Encoding": coding})
    problem(answer, 415, "unsupported_media_type")
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
async def test_identity_is_no_coding(user: httpx.AsyncClient, coding: str) -> None:
    body = json.dumps(order(await added(user)))
    answer = await user.post("/payments", content=body, headers={**JSON, "Content-Encoding": coding})
    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("charset", "status"),
    [
        ("utf-8", 202), ("UTF-8", 202), ('"utf-8"', 202), ("utf8", 202),
        ("utf-16", 415), ("windows-1252", 415), ("iso-8859-1", 415), ("nonsense", 415), ("", 415),
    ],
)  # fmt: skip
async def test_a_charset_other_than_utf_8_is_415(user: httpx.AsyncClient, charset: str, status: int) -> None:
    body = json.dumps(order(await added(user)))
    answer = await user.post(
        "/payments", content=body, headers={"Content-Type": f"application/json; charset={charset}"}
    )
    assert answer.status_code == status, answer.text


async def test_a_media_type_that_takes_long_to_parse_is_415(user: httpx.AsyncClient) -> None:
    for start in ('application/json; charset="', 'application/json; charset=utf-8;"'):
        answer = await user.post("/payments", content=b"{}", headers={"Content-Type": start + ";" * 300})
        problem(answer, 415, "unsupported_media_type")


# -- header lines that come twice


async def test_two_authorizations_are_401_also_if_both_are_valid(running_api: RunningApi) -> None:
    lines = [("Authorization", running_api.user(number).headers["Authorization"]) for number in (1, 2)]
    for headers in (lines, [lines[0], lines[0]]):
        problem(await running_api.client().get("/payments", headers=headers), 401, "invalid_token")


@pytest.mark.parametrize("path", PATHS)
async def test_two_idempotency_keys_are_422(running_api: RunningApi, service: httpx.AsyncClient, path: str) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b"), ("Content-Type", "application/json")]
    found = problem(await service.post(path, content="{}", headers=headers), 422, "validation_error")
    assert found["errors"][0] == {
        "pointer": "/header/idempotency-key",
        "detail": '"idempotency-key" comes twice: send it once.',
    }


async def test_the_lines_of_a_list_are_joined(user: httpx.AsyncClient) -> None:
    payment = await accepted(user, order(await added(user)))
    path = f"/payments/{payment['id']}"
    lines = [("If-None-Match", '"99"'), ("If-None-Match", '"1"')]
    assert (await user.get(path, headers=lines)).status_code == 304
    answer = await user.get(path, headers=[("Prefer", "respond-async"), ("Prefer", "wait=1")])
    assert answer.headers["preference-applied"] == "wait=1"


@pytest.mark.parametrize("etag", ['"1"', 'W/"1"', '"1-gzip"', '"7", "1"', "*", '"7",\t"1"'])
async def test_every_form_of_the_current_etag_is_304(user: httpx.AsyncClient, etag: str) -> None:
    payment = await accepted(user, order(await added(user)))
    for path in ("", "/status"):
        answer = await user.get(f"/payments/{payment['id']}{path}", headers={"If-None-Match": etag})
        assert answer.status_code == 304
    answer = await user.get(f"/payments/{payment['id']}", headers={"If-None-Match": '"11-gzip", "1x"'})
    assert answer.status_code == 200


async def test_an_answer_with_a_secret_stays_in_no_cache(service: httpx.AsyncClient) -> None:
    answer = await service.post("/webhook-endpoints", json={"name": "a", "url": "http://127.0.0.1:9/"})
    assert answer.json()["secret"]
    assert answer.headers["cache-control"] == "no-store"
    assert (await service.get("/callback-secret")).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("key", ['"', '"a', '"a"b', '""'])
async def test_half_a_quoted_key_is_422(user: httpx.AsyncClient, key: str) -> None:
    body = order(await added(user))
    problem(await user.post("/payments", json=body, headers={"Idempotency-Key": key}), 422, "validation_error")


# -- query parameters


@pytest.mark.parametrize(
    "query", ["foo=1", "Status=PENDING", "created_afer=2026-01-01T00:00:00Z", "limit=1&x=", "limit"]
)
async def test_an_unknown_query_parameter_is_422(user: httpx.AsyncClient, query: str) -> None:
    answer = await user.get(f"/payments?{query}")
    assert problem(answer, 422, "validation_error")["errors"][0]["pointer"].startswith("/query/")


async def test_a_repeated_query_parameter_is_422(user: httpx.AsyncClient) -> None:
    found = problem(await user.get("/payments?limit=1&limit=2"), 422, "validation_error")
    assert found["errors"] == [{"pointer": "/query/limit", "detail": '"limit" comes twice: send it once.'}]


@pytest.mark.parametrize("limit", ["1.0", "1_0", "%201", "+1", "%2B1", "1e0", "\u0661", "-1", ""])
async def test_a_limit_has_only_digits(user: httpx.AsyncClient, limit: str) -> None:
    problem(await user.get(f"/payments?limit={limit}"), 422, "validation_error")


async def test_operations_without_parameters_take_none(user: httpx.AsyncClient) -> None:
    payment_id = new_id()
    for path in (f"/payments/{payment_id}?x=1", f"/payments/{payment_id}/status?wait=1", "/payment-methods?limit=1"):
        problem(await user.get(path), 422, "validation_error")
    problem(await user.post(f"/payments/{payment_id}/cancel?x=1"), 422, "validation_error")
