"""What the overview says is unwell: receivers that fail, services that are away, breaches that were found."""

from datetime import UTC, datetime
from typing import Any

from api.dashboard.unwell import Unwell
from shared.database.engine import Database
from shared.keyring import Keyring
from shared.verify.reports import keep_report
from shared.webhooks.attempts import TryAgain
from shared.webhooks.failing import failing_receivers
from tests.support.api_client import RunningApi
from tests.support.deliveries import attempt, claim_one, endpoint_with, record, success

pytest_plugins = ["tests.support.delivery_fixtures", "tests.support.api_fixtures"]


async def test_receivers_fail_whose_deliveries_wait_for_another_attempt(database: Database, keyring: Keyring) -> None:
    failing, items = await endpoint_with(database, keyring, 3)
    first, second, third = [await claim_one(database, item) for item in items]
    await record(database, attempt(first, TryAgain(60)), attempt(second, TryAgain(60)), success(third))
    await endpoint_with(database, keyring, 1)
    async with database.read() as connection:
        [found] = await failing_receivers(connection, limit=5)
    assert (found.kind, found.endpoint_id, found.endpoint_name, found.waiting) == ("endpoint", failing.id, "shop", 2)


async def test_the_overview_says_what_is_unwell_with_the_page_that_says_more(
    running_api: RunningApi, keyring: Keyring
) -> None:
    assert running_api.api is not None
    assert await Unwell(running_api.api).current() == []
    failing, [item] = await endpoint_with(running_api.database, keyring, 1)
    await record(running_api.database, attempt(await claim_one(running_api.database, item), TryAgain(60)))
    report: dict[str, Any] = {"breaches_total": 2}
    async with running_api.database.transaction() as connection:
        now = datetime.now(UTC)
        await keep_report(connection, report, started_at=now, finished_at=now)
    found = await Unwell(running_api.api).current()
    assert [(entry["tone"], entry["page"]) for entry in found] == [
        ("bad", "/system#verify"),
        ("ask", f"/webhooks/{failing.id}"),
    ]
    assert found[1]["text"] == "1 delivery fails at the endpoint shop."
