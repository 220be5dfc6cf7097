"""Authorizing, capturing and refunding beside a worker of 0.1, and with one of ours."""

import httpx

from shared.broker.heartbeats import WorkerStatus, send_heartbeat
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, added, card, opened, order, problem
from tests.support.long_polls import WAIT
from tests.support.money import authorized, charged, in_status, shown
from tests.support.workers import working

pytest_plugins = ["tests.support.api_fixtures"]


async def test_while_a_worker_of_0_1_is_alive_nothing_is_accepted_that_it_would_do_wrong(
    runtime: Runtime, running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    held, voided = [await authorized(user, running_api.database) for _ in range(2)]
    done = await charged(user, running_api.database)
    method_id = await added(user, card("5555555555554444"))
    old = WorkerStatus(worker="old", slots=1, in_gateway=0, sending=0, settled=0, settled_per_s=0.0, uptime_s=1.0)
    await send_heartbeat(runtime.broker, old)
    async with opened(runtime) as beside:
        service, customer = beside.service(), beside.user()
        for refused in (
            await customer.post("/payments", json=order(method_id, capture_method="manual")),
            await service.post(f"/payments/{held['id']}/capture"),
            await customer.post(f"/payments/{voided['id']}/cancel"),
            await service.post(f"/payments/{done['id']}/refunds"),
        ):
            body = problem(refused, 503, "unavailable")
            assert "older version" in body["detail"]
            assert "retry-after" in refused.headers
        assert (await customer.post("/payments", json=order(method_id))).status_code == 202
    for before in (held, voided, done):
        assert await shown(user, before["id"]) == before


async def test_with_a_worker_a_payment_is_authorized_captured_and_refunded(
    runtime: Runtime, running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    async with working(runtime):
        held = await user.post("/payments", json=order("pm_test_visa", capture_method="manual"), headers=WAIT)
        assert (held.status_code, held.json()["status"]) == (201, "AUTHORIZED")
        path = f"/payments/{held.json()['id']}"
        captured = await service.post(f"{path}/capture", json={"amount": 1000}, headers=WAIT)
        assert (captured.status_code, captured.json()["amount_captured"]) == (200, 1000)
        refund = await service.post(f"{path}/refunds", headers=WAIT)
        assert (refund.status_code, refund.json()["status"], refund.json()["amount"]) == (201, "COMPLETED", 1000)
        refunded = (await user.get(path)).json()
        assert (refunded["status"], refunded["amount_refundable"]) == ("REFUNDED", 0)
        second = await user.post("/payments", json=order("pm_test_visa", capture_method="manual"), headers=WAIT)
        assert (await user.post(f"/payments/{second.json()['id']}/cancel")).status_code == 202
        await in_status(user, second.json()["id"], "CANCELLED")
