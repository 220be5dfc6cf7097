"""Bodies and queries that are not what they should be: each fault is named, and no card number is repeated."""

import json

import httpx
import pytest

from api.problem_handlers import ERRORS_MAX
from shared.ids import new_id
from tests.support.api_client import VISA, RunningApi, added, card, order, paypal, pointers, problem
from tests.support.stored import row_counts

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
