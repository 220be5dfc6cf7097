"""The history says which worker has claimed; only admins see it, as the names tell of the machines."""

from typing import Any

import httpx

from shared.database.histories import WORKER_NAME
from tests.support.api_client import RunningApi, accepted, order
from tests.support.dashboards import bearer, signed_in
from tests.support.workers import working

pytest_plugins = ["tests.support.api_fixtures"]

WAIT = {"Prefer": "wait=10"}


async def refunded(user: httpx.AsyncClient, admin: httpx.AsyncClient) -> tuple[str, str]:
    """A payment and its refund, both settled by a worker."""
    payment = await accepted(user, order("pm_test_visa"))
    await user.get(f"/payments/{payment['id']}", headers=WAIT)
    body = {"amount": 500, "reason": "duplicate"}
    refund = (await admin.post(f"/payments/{payment['id']}/refunds", json=body, headers=WAIT)).json()
    return payment["id"], refund["id"]


async def workers(client: httpx.AsyncClient, path: str) -> list[Any]:
    """The worker of each claim in a history."""
    entries = (await client.get(f"{path}/history")).json()["history"]
    claims = [entry["metadata"] for entry in entries if "attempt" in entry["metadata"]]
    assert claims
    return [claim.get(WORKER_NAME) for claim in claims]


async def test_admins_see_which_worker_has_claimed_and_nobody_else_does(running_api: RunningApi) -> None:
    user, service, admin = running_api.user(), running_api.service(), running_api.admin()
    async with working(running_api.runtime):
        payment_id, refund_id = await refunded(user, admin)
        [alive] = (await admin.get("/stats")).json()["workers"]
    for path in (f"/payments/{payment_id}", f"/refunds/{refund_id}"):
        assert await workers(admin, path) == [alive["worker"]]
        assert await workers(user, path) == await workers(service, path) == [None]


async def test_the_page_of_a_payment_says_it_to_admins_only(running_api: RunningApi) -> None:
    user, admin = running_api.user(), running_api.admin()
    async with working(running_api.runtime):
        payment_id, _ = await refunded(user, admin)
    [worker] = await workers(admin, f"/payments/{payment_id}")
    for role, name, is_said in (("admin", "root", True), ("service", "shop", False), (None, "1", False)):
        browser = await signed_in(running_api, bearer(running_api, role, name))
        page = (await browser.get(f"/payments/{payment_id}")).text
        assert (worker in page) == is_said, role
        assert (f"A worker asks the gateway ({worker})" in page) == is_said
