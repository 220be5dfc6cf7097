"""API keys over HTTP, on both databases: creating, listing and revoking them."""

import string
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from api.schemas.api_keys import ApiKeyWithSecret
from shared.api_keys import DIGITS, KEY_FORM, new_api_key
from shared.ids import new_id
from tests.support.api_client import RunningApi, added, created_key, order, pointers, problem
from tests.support.models import strict
from tests.support.stored import everything_stored

pytest_plugins = ["tests.support.api_fixtures"]

KEY = {"name": "orders", "role": "service"}
IDEMPOTENT = {"Idempotency-Key": "k"}


def in_a_day() -> str:
    return (datetime.now(UTC) + timedelta(days=1)).isoformat()


# -- the key itself


def test_a_key_is_a_prefix_and_32_random_bytes_in_base62() -> None:
    keys = [new_api_key() for _ in range(2000)]
    assert len(set(keys)) == len(keys)
    assert set(DIGITS) == set(string.ascii_letters + string.digits)
    for key in keys:
        assert KEY_FORM.fullmatch(key)
        number = 0
        for digit in key.removeprefix("sk_sim_"):
            number = number * 62 + DIGITS.index(digit)
        assert number < 2**256
    # 43 digits have room for a little more than 2^256, so the first digit is not evenly spread.
    assert set("".join(key[-42:] for key in keys)) == set(DIGITS)


# -- creating


async def test_a_new_key_is_shown_once_and_works(running_api: RunningApi, admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/api-keys", json={**KEY, "expires_at": in_a_day()})
    created = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    strict(ApiKeyWithSecret).model_validate(created)
    assert (created["name"], created["role"], created["created_by"]) == ("orders", "service", "admin:root")
    assert created["last_used_at"] is None
    key = created.pop("key")
    assert KEY_FORM.fullmatch(key)
    assert created["key_start"] == key[:11]
    assert (await running_api.bearing(key).get("/webhook-endpoints")).status_code == 200
    [listed] = (await admin.get("/api-keys")).json()["api_keys"]
    assert listed == created


async def test_neither_the_key_nor_its_plain_hash_is_stored(running_api: RunningApi, admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/api-keys", json=KEY, headers=IDEMPOTENT)
    key = answer.json()["key"]
    await running_api.bearing(key).get("/payments")
    stored = await everything_stored(running_api.database)
    assert "sk_sim_" in stored  # its first characters
    assert key[:14] not in stored
    assert key[20:] not in stored


async def test_an_admins_key_creates_keys(running_api: RunningApi, admin: httpx.AsyncClient) -> None:
    ops = running_api.bearing(await created_key(admin, name="ops", role="admin"))
    answer = await ops.post("/api-keys", json=KEY)
    assert (answer.status_code, answer.json()["created_by"]) == (201, "admin:ops")


@pytest.mark.parametrize("role", ["service", "admin"])
async def test_names_may_be_as_long_as_they_may_be(running_api: RunningApi, role: str) -> None:
    creator = running_api.admin("y" * 64)
    created = (await creator.post("/api-keys", json={"name": "x" * 64, "role": role}, headers=IDEMPOTENT)).json()
    assert (created["name"], created["created_by"]) == ("x" * 64, f"admin:{'y' * 64}")
    holder = running_api.bearing(created["key"])
    assert (await holder.post("/payments", json=order(await added(holder)), headers=IDEMPOTENT)).status_code == 202
    assert (await creator.delete(f"/api-keys/{created['id']}")).status_code == 204


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": ""}, "/name"), ({"name": "x" * 65}, "/name"), ({"name": "a b"}, "/name"), ({"name": "a\n"}, "/name"),
        ({"name": "ü"}, "/name"), ({"name": "a/b"}, "/name"), ({"name": 7}, "/name"), ({"name": None}, "/name"),
        ({"role": "user"}, "/role"), ({"role": "payment_admin"}, "/role"), ({"role": "ADMIN"}, "/role"),
        ({"role": ["admin"]}, "/role"), ({"role": None}, "/role"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"), ({"expires_at": "2099-01-01T00:00:00"}, "/expires_at"),
        ({"expires_at": "2099-01-01"}, "/expires_at"), ({"expires_at": 4070908800}, "/expires_at"),
        ({"expires_at": "4070908800"}, "/expires_at"), ({"expires_at": ""}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-05:00"}, "/expires_at"), ({"expires_at": True}, "/expires_at"),
        ({"key": "sk_sim_mine"}, "/key"), ({"scopes": ["all"]}, "/scopes"),
    ],
)  # fmt: skip
async def test_what_is_no_key_is_422_and_creates_none(
    admin: httpx.AsyncClient, change: dict[str, Any], pointer: str
) -> None:
    assert pointers(await admin.post("/api-keys", json={**KEY, **change})) == [pointer]
    assert (await admin.get("/api-keys")).json()["api_keys"] == []


async def test_an_expiry_is_shown_in_utc(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/api-keys", json={**KEY, "expires_at": "2099-01-01T01:00:00.1239+02:00"})
    assert answer.json()["expires_at"] == "2098-12-31T23:00:00.123Z"


async def test_a_repeat_does_not_show_the_key_again(admin: httpx.AsyncClient) -> None:
    first = await admin.post("/api-keys", json=KEY, headers=IDEMPOTENT)
    again = await admin.post("/api-keys", json=KEY, headers=IDEMPOTENT)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert again.json() == {name: value for name, value in first.json().items() if name != "key"}
    assert len((await admin.get("/api-keys")).json()["api_keys"]) == 1
    other = await admin.post("/api-keys", json={**KEY, "role": "admin"}, headers=IDEMPOTENT)
    problem(other, 422, "idempotency_key_reused")
    await admin.delete(f"/api-keys/{first.json()['id']}")
    problem(await admin.post("/api-keys", json=KEY, headers=IDEMPOTENT), 404, "not_found")


# -- listing


async def test_the_list_has_pages_the_newest_first(running_api: RunningApi, admin: httpx.AsyncClient) -> None:
    for number in range(5):
        await created_key(admin, name=f"s{number}")
    first = (await admin.get("/api-keys", params={"limit": 3})).json()
    assert ([key["name"] for key in first["api_keys"]], first["limit"]) == (["s4", "s3", "s2"], 3)
    second = (await admin.get("/api-keys", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert ([key["name"] for key in second["api_keys"]], second["next_cursor"]) == (["s1", "s0"], None)
    for list_of_others in ("/payments", "/webhook-endpoints/x/deliveries"):
        assert (await admin.get(list_of_others, params={"cursor": first["next_cursor"]})).status_code in {404, 422}
    another = running_api.admin("another")
    assert pointers(await another.get("/api-keys", params={"cursor": first["next_cursor"]})) == ["/query/cursor"]


async def test_a_cursor_of_payments_is_none_of_keys(admin: httpx.AsyncClient) -> None:
    method_id = await added(admin)
    for _ in range(2):
        await admin.post("/payments", json=order(method_id))
    cursor = (await admin.get("/payments", params={"limit": 1})).json()["next_cursor"]
    assert pointers(await admin.get("/api-keys", params={"cursor": cursor})) == ["/query/cursor"]


# -- revoking


async def test_a_revoked_key_is_refused_gone_from_the_list_and_revoked_once(
    running_api: RunningApi, admin: httpx.AsyncClient
) -> None:
    answer = await admin.post("/api-keys", json=KEY)
    service, path = running_api.bearing(answer.json()["key"]), f"/api-keys/{answer.json()['id']}"
    assert (await service.get("/payments")).status_code == 200
    assert (await admin.delete(path)).status_code == 204
    refused = problem(await service.get("/payments"), 401, "invalid_token")
    assert refused["detail"] == "This API key was revoked. Ask an admin for a new one."
    assert (await admin.get("/api-keys")).json()["api_keys"] == []
    problem(await admin.delete(path), 404, "not_found")


async def test_another_key_of_the_same_name_goes_on(running_api: RunningApi, admin: httpx.AsyncClient) -> None:
    old = (await admin.post("/api-keys", json=KEY)).json()
    new = (await admin.post("/api-keys", json=KEY)).json()
    await admin.delete(f"/api-keys/{old['id']}")
    assert (await running_api.bearing(new["key"]).get("/payments")).status_code == 200


async def test_an_unknown_id_is_not_found(admin: httpx.AsyncClient) -> None:
    for unknown in (str(new_id()), "1", "sk_sim_x"):
        problem(await admin.delete(f"/api-keys/{unknown}"), 404, "not_found")


# -- what is logged


async def test_creation_use_and_revocation_are_logged_and_so_is_a_use_afterwards(
    running_api: RunningApi, admin: httpx.AsyncClient
) -> None:
    with capture_logs() as logs:
        created = (await admin.post("/api-keys", json=KEY)).json()
        service = running_api.bearing(created["key"])
        await service.get("/payments")
        await admin.delete(f"/api-keys/{created['id']}")
        await service.get("/payments")
    logged = {line["event"]: line for line in logs if line.get("api_key_id") == created["id"]}
    assert set(logged) == {"api_key.created", "http.answered", "api_key.revoked", "api_key.refused"}
    assert {logged[event]["principal"] for event in logged if event != "http.answered"} == {"service:orders"}
    assert logged["api_key.created"]["by"] == logged["api_key.revoked"]["by"] == "admin:root"
    assert (logged["api_key.refused"]["reason"], logged["api_key.refused"]["log_level"]) == ("revoked", "warning")
    assert created["key"] not in str(logs)
