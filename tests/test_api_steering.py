"""`simulation` in requests over HTTP, on both databases; with a real worker where something must happen."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from shared.broker.client import Queue
from shared.broker.heartbeats import WorkerStatus, send_heartbeat
from shared.config.settings import Settings
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, added, card, opened, opened_with, order, pointers, problem
from tests.support.messages import items_in
from tests.support.money import authorized, charged
from tests.support.rows import assert_sound
from tests.support.sentences import check_sentences
from tests.support.workers import working

pytest_plugins = ["tests.support.api_fixtures"]

WAIT = {"Prefer": "wait=20"}  # far longer than any test takes
INTENT = {"outcomes": ["timeout_charged", "lost_card"], "delay_ms": 0}


@pytest.mark.parametrize(
    ("simulation", "pointer"),
    [
        (None, None),
        ([], "/simulation"),
        ("approve", "/simulation"),
        ({"outcome": ["approve"]}, "/simulation/outcome"),
        ({"outcomes": []}, "/simulation/outcomes"),
        ({"outcomes": ["approve"] * 21}, "/simulation/outcomes"),
        ({"outcomes": "approve"}, "/simulation/outcomes"),
        ({"outcomes": ["approved"]}, "/simulation/outcomes/0"),
        ({"outcomes": ["approve", "capture_declined"]}, "/simulation/outcomes/1"),
        ({"outcomes": ["refund_declined"]}, "/simulation/outcomes/0"),
        ({"outcomes": ["order_not_found"]}, "/simulation/outcomes/0"),
        ({"outcomes": [1]}, "/simulation/outcomes/0"),
        ({"delay_ms": -1}, "/simulation/delay_ms"),
        ({"delay_ms": 20_001}, "/simulation/delay_ms"),
        ({"delay_ms": 1.5}, "/simulation/delay_ms"),
        ({"delay_ms": True}, "/simulation/delay_ms"),
        ({"pending_ms": 86_400_001}, "/simulation/pending_ms"),
        ({"pending_ms": "1"}, "/simulation/pending_ms"),
    ],
)
async def test_bad_steering_is_422_and_names_the_member(
    make_settings: Callable[..., Settings], simulation: Any, pointer: str | None
) -> None:
    async with opened_with(make_settings(lease_s=30)) as running_api:
        answer = await running_api.user().post("/payments", json=order("pm_test_visa", simulation=simulation))
    if pointer is None:
        assert answer.status_code == 202
        return
    assert pointers(answer) == [pointer]
    for error in answer.json()["errors"]:
        check_sentences(error["detail"])


@pytest.mark.parametrize(
    ("path", "outcome", "unfit"),
    [("capture", "capture_declined", "refund_declined"), ("refunds", "refund_declined", "lost_card")],
)
async def test_captures_and_refunds_take_the_outcomes_of_their_operation(
    running_api: RunningApi, service: httpx.AsyncClient, user: httpx.AsyncClient, path: str, outcome: str, unfit: str
) -> None:
    prepare = authorized if path == "capture" else charged
    payment = await prepare(user, running_api.database)
    refused = await service.post(f"/payments/{payment['id']}/{path}", json={"simulation": {"outcomes": [unfit]}})
    assert pointers(refused) == ["/simulation/outcomes/0"]
    taken = await service.post(f"/payments/{payment['id']}/{path}", json={"simulation": {"outcomes": [outcome]}})
    assert taken.status_code == 202
    assert taken.json()["simulation"] == {"outcomes": [outcome], "delay_ms": None, "pending_ms": None, "applied": []}


async def test_without_simulation_nothing_is_steered(
    make_settings: Callable[..., Settings],
) -> None:
    async with opened_with(make_settings(simulation="off")) as running_api:
        user, service = running_api.user(), running_api.service()
        method_id = await added(user)
        held, done = await authorized(user, running_api.database), await charged(user, running_api.database)
        steered = {"simulation": {"outcomes": ["approve"]}}
        for refused in (
            await user.post("/payments", json=order(method_id, **steered)),
            await service.post(f"/payments/{held['id']}/capture", json=steered),
            await service.post(f"/payments/{done['id']}/refunds", json=steered),
        ):
            check_sentences(problem(refused, 403, "simulation_disabled")["detail"])


async def test_beside_a_worker_of_0_1_no_payment_is_steered(
    runtime: Runtime, running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    method_id = await added(user, card("5555555555554444"))
    old = WorkerStatus(worker="old", slots=1, in_gateway=0, sending=0, settled=0, settled_per_s=0.0, uptime_s=1.0)
    await send_heartbeat(runtime.broker, old)
    async with opened(runtime) as beside:
        answer = await beside.user().post("/payments", json=order(method_id, simulation=INTENT))
        problem(answer, 503, "unavailable")
        assert (await beside.user().post("/payments", json=order(method_id))).status_code == 202


async def test_a_key_tells_a_steered_payment_from_a_plain_one(user: httpx.AsyncClient) -> None:
    body, key = order("pm_test_visa"), {"Idempotency-Key": "k"}
    first = await user.post("/payments", json=body, headers=key)
    assert first.status_code == 202
    other = await user.post("/payments", json=body | {"simulation": INTENT}, headers=key)
    problem(other, 422, "idempotency_key_reused")
    same = await user.post("/payments", json=body | {"simulation": None}, headers=key)
    assert same.json()["id"] == first.json()["id"]


async def test_what_is_to_stay_pending_is_not_published_and_may_be_cancelled(
    runtime: Runtime, running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    waits = {"simulation": {"pending_ms": 60_000}}
    payment = (await user.post("/payments", json=order("pm_test_visa", **waits))).json()
    held, done = await authorized(user, running_api.database), await charged(user, running_api.database)
    before = await items_in(runtime.broker, Queue.PROCESS)
    await service.post(f"/payments/{held['id']}/capture", json=waits)
    await service.post(f"/payments/{done['id']}/refunds", json=waits)
    assert await items_in(runtime.broker, Queue.PROCESS) == before
    assert payment["id"] not in {str(item.id) for item in before}
    assert await items_in(runtime.broker, Queue.REFUND) == []
    assert (await user.post(f"/payments/{payment['id']}/cancel")).json()["status"] == "CANCELLED"


async def test_steered_operations_end_as_they_were_asked_to(
    runtime: Runtime, running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    """The charge's answer is lost, the capture is refused once, and the answer to the refund is lost."""
    async with working(runtime):
        body = order("pm_test_visa", capture_method="manual", simulation=INTENT)
        held = (await user.post("/payments", json=body, headers=WAIT)).json()
        assert (held["status"], held["outcome_rule"]) == ("AUTHORIZED", "request")
        path = f"/payments/{held['id']}"
        refused = {"simulation": {"outcomes": ["capture_declined"], "delay_ms": 0}}
        again = (await service.post(f"{path}/capture", json=refused, headers=WAIT)).json()
        assert (again["status"], again["last_capture_error"]["code"]) == ("AUTHORIZED", "capture_declined")
        lost = {"simulation": {"outcomes": ["timeout_charged"], "delay_ms": 0}}
        captured = (await service.post(f"{path}/capture", json=lost, headers=WAIT)).json()
        assert (captured["status"], captured["amount_captured"]) == ("COMPLETED", held["amount"])
        refund = (await service.post(f"{path}/refunds", json=lost | {"amount": 100}, headers=WAIT)).json()
        assert refund["status"] == "COMPLETED"
    applied = [(each["operation"], each["call"], each["outcome"]) for each in captured["simulation"]["applied"]]
    assert applied == [
        ("authorize", 1, "timeout_charged"),
        # The second call finds the authorization of the first one.
        ("capture", 1, "capture_declined"),
        *(("capture", number, "timeout_charged") for number in (1, 2, 3)),
    ]
    assert [(each["call"], each["outcome"]) for each in refund["simulation"]["applied"]] == [
        (number, "timeout_charged") for number in (1, 2, 3)
    ]
    history = (await user.get(f"{path}/history")).json()["history"]
    assert [each["reason"] for each in history][:4] == ["accepted", "claimed", "gateway_timed_out", "authorized"]
    await assert_sound(running_api.database)
