"""The bound on requests that take a transaction of their own."""

from contextlib import ExitStack

import httpx

from api.state import STEPS_MAX
from tests.support.api_client import RunningApi, accepted, order, problem
from tests.support.money import authorized, charged
from tests.support.stored import row_counts

pytest_plugins = ["tests.support.api_fixtures"]


async def test_what_takes_a_transaction_alone_is_overloaded_at_once_and_payments_are_not(
    running_api: RunningApi, service: httpx.AsyncClient, user: httpx.AsyncClient
) -> None:
    assert running_api.api is not None
    payment = await charged(user, running_api.database)
    held = await authorized(user, running_api.database)
    before = await row_counts(running_api.database)
    with ExitStack() as taken:
        for _ in range(STEPS_MAX):
            taken.enter_context(running_api.api.steps.one())
        for path in (f"{payment['id']}/refunds", f"{held['id']}/capture", f"{held['id']}/cancel"):
            answer = await service.post(f"/payments/{path}", headers={"Idempotency-Key": "k"})
            problem(answer, 503, "overloaded")
            assert int(answer.headers["Retry-After"]) >= 1
        assert await row_counts(running_api.database) == before
        await accepted(user, order("pm_test_visa"))
    # What was refused has not used up its key.
    answer = await service.post(f"/payments/{payment['id']}/refunds", headers={"Idempotency-Key": "k"})
    assert answer.status_code == 202
    assert "Idempotent-Replayed" not in answer.headers
