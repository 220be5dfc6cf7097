"""What `Prefer: wait=N` may say, and who waits for nothing: whoever is refused, and whoever asks for what is over."""

import httpx
import pytest

from tests.support.api_client import RunningApi, accepted, added, order, paid
from tests.support.long_polls import WAIT
from tests.support.settling import APPROVED, settled

pytest_plugins = ["tests.support.api_fixtures"]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=7", "wait=7"),
        ("wait=100", "wait=25"),
        ("wait=999999999", "wait=25"),
        ("WAIT = 3", "wait=3"),
        ('wait="3"', "wait=3"),
        ("respond-async, wait=10", "wait=10"),
        ("wait=3; x=y", "wait=3"),
        ("wait=2, wait=9", "wait=2"),
        ('foo="a", wait=2', "wait=2"),
        ("respond-async; wait=10", None),
        ("return=minimal; wait=1", None),
        ('foo="a, wait=1"', None),
        ('foo="\\", wait=1, "', None),
        ("handling=lenient,wait=4,x", "wait=4"),
        ("", None),
        ("wait=0", None),
        ("wait=00, wait=9", None),
        ("wait", None),
        ("wait=", None),
        ("wait=x", None),
        ("wait=-5", None),
        ("wait=1.5", None),
        ("wait=1e3", None),
        ("wait=9999999999", None),
        ("await=5", None),
        ("wait=5s", None),
        ("respond-async", None),
    ],
)
async def test_a_wish_is_for_25_seconds_at_most_and_nonsense_ignored(
    running_api: RunningApi, user: httpx.AsyncClient, prefer: str, applied: str | None
) -> None:
    payment = await paid(user)
    await settled(running_api.database, payment["id"], APPROVED)
    answer = await user.get(f"/payments/{payment['id']}", headers={"Prefer": prefer})
    assert answer.status_code == 200
    assert answer.headers.get("preference-applied") == applied


async def test_nonsense_makes_no_request_wait(user: httpx.AsyncClient) -> None:
    payment = await paid(user)
    for prefer in ("wait=x", "wait=-1", "wait=0", "respond-async"):
        answer = await user.get(f"/payments/{payment['id']}", headers={"Prefer": prefer})
        assert (answer.status_code, answer.json()) == (200, payment)
        assert "preference-applied" not in answer.headers


async def test_a_payment_that_has_ended_makes_no_request_wait(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    body, key = order(await added(user)), {"Idempotency-Key": "k1"}
    payment = (await user.post("/payments", json=body, headers=key)).json()
    await settled(running_api.database, payment["id"], APPROVED)
    got = await user.get(f"/payments/{payment['id']}", headers=WAIT)
    replayed = await user.post("/payments", json=body, headers=key | WAIT)
    assert (got.status_code, replayed.status_code) == (200, 202)
    assert got.json() == replayed.json()
    assert got.headers["preference-applied"] == replayed.headers["preference-applied"] == "wait=20"


async def test_what_is_refused_is_refused_at_once(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    await accepted(user, order(method_id, order_id="o1"))
    for body in (order(method_id, order_id="o1"), order("x"), order(method_id, amount=1)):
        assert (await user.post("/payments", json=body, headers=WAIT)).status_code in {409, 422}
    assert (await user.get("/payments/x", headers=WAIT)).status_code == 404


async def test_nobody_waits_for_a_payment_that_is_not_theirs(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    payment = await paid(user)
    assert (await running_api.user(2).get(f"/payments/{payment['id']}", headers=WAIT)).status_code == 404
