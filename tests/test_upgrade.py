"""Version 0.1 and this version beside each other on one PostgreSQL, as during an upgrade."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.broker.client import Queue, open_broker
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.ids import new_id
from shared.lifecycle import OutcomeRule, PaymentStatus
from shared.payments.accept import Accepted, accept
from shared.payments.find import Visible
from shared.payments.intent import Intent
from shared.simulation.ready_made import READY_MADE
from shared.version import VERSION
from tests.support.api_client import problem
from tests.support.harness import RULES
from tests.support.processes import PaymentsProcess, Shop, environment_of, processes
from tests.support.rows import read, read_all
from tests.support.servers import free_port
from tests.support.survival import MakeSettings, are_all_settled, everything_ends, everything_settles, on_postgresql
from tests.support.version_0_1 import process_of_0_1, unpack
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.survival_fixtures"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# Heartbeats expire after four seconds, and are read once a second.
NOTICED_S = 30.0
SETTLED_S = 120.0
CLIENTS = 4
CARDS = ("5555555555554444", "4000056655665556", "4000000000000002")


@dataclass
class Installation:
    """An API and a worker of each version."""

    old_api: PaymentsProcess
    old_worker: PaymentsProcess
    api: PaymentsProcess
    worker: PaymentsProcess
    settings: Settings
    # The payment of each idempotency key.
    paid: dict[str, str] = field(default_factory=dict)
    is_over: bool = False

    def shop(self, api: PaymentsProcess, **claims: Any) -> Shop:
        return Shop(api.settings, **claims)

    @property
    def all(self) -> tuple[PaymentsProcess, ...]:
        return (self.old_api, self.old_worker, self.api, self.worker)


@asynccontextmanager
async def installed(make_settings: MakeSettings, folder: Path) -> AsyncIterator[Installation]:
    """Both versions on one database and one Valkey, all four processes at work."""
    source = unpack(folder / "source")
    settings, old_settings = make_settings(), make_settings(port=free_port())
    found = Installation(
        old_api=process_of_0_1("api", folder / "old-api", old_settings, source=source),
        old_worker=process_of_0_1("worker", folder / "old-worker", old_settings, source=source),
        api=PaymentsProcess("api", folder / "api", settings),
        worker=PaymentsProcess("worker", folder / "worker", settings),
        settings=settings,
    )
    with processes(*found.all):
        for process in found.all:
            await process.ready()
        await knows_of_0_1(found.api)
        yield found


async def knows_of_0_1(api: PaymentsProcess, *, is_gone: bool = False) -> None:
    """Return when the API has noticed that a worker of 0.1 is alive, or that none is any more."""
    known = {"workers.of_0_1_alive": False, "workers.of_0_1_gone": True}
    await eventually(
        lambda: [known[line["event"]] for line in api.lines() if line["event"] in known][-1:] == [is_gone], NOTICED_S
    )


async def is_sound(settings: Settings) -> bool:
    """Whether `payments verify` finds nothing wrong in the whole installation."""
    arguments = [sys.executable, "-c", "from cli.main import app; app(['verify'])"]
    environment = {**os.environ, **environment_of(settings)}
    done = await asyncio.to_thread(subprocess.run, arguments, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return b"sound" in done.stdout.lower()


async def buy(found: Installation, user: str) -> None:
    """Pay order after order, each at one API and again at the other one with the same key, until it is over."""
    async with found.shop(found.old_api, user=user) as old, found.shop(found.api, user=user) as new:
        methods = [
            await old.add_card(CARDS[0]),
            await new.add_card(CARDS[1], "DEBIT_CARD"),
            await new.add_card(CARDS[2]),
        ]
        number = 0
        while not found.is_over:
            number += 1
            body = {"order_id": f"{user}-{number}", "amount": 1585, "payment_method_id": methods[number % 3]}
            key = f"{user}-key-{number}"
            both = (old, new) if number % 2 else (new, old)
            ids = {await pay_until_answered(shop.http, body, key) for shop in both}
            assert len(ids) == 1, f"the key {key} led to {ids}"
            found.paid[key] = ids.pop()


async def pay_until_answered(http: httpx.AsyncClient, body: dict[str, Any], key: str) -> str:
    """The id of the payment, whatever is killed in between."""
    while True:
        try:
            answer = await http.post("/payments", json=body, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            await asyncio.sleep(0.2)
            continue
        if answer.status_code == 503:
            await asyncio.sleep(0.2)
            continue
        assert answer.status_code == 202, answer.text
        payment_id: str = answer.json()["id"]
        return payment_id


async def kill_each(found: Installation) -> None:
    """Kill and start again every process, one after the other, under load."""
    for process in (found.old_worker, found.worker, found.old_api, found.api):
        await asyncio.sleep(1.5)
        process.kill()
        await asyncio.sleep(0.3)
        await process.start().ready()
    await asyncio.sleep(1.5)


@on_postgresql
async def test_both_versions_work_side_by_side_under_load_and_kills(
    slow_gateway: MakeSettings, database: Database, tmp_path: Path
) -> None:
    async with installed(slow_gateway, tmp_path) as found:
        await older_worker_is_spared(found)
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(buy(found, str(number + 1)))
            await kill_each(found)
            found.is_over = True
        assert len(found.paid) > 2 * CLIENTS
        await eventually(lambda: are_all_settled(database), SETTLED_S)
        assert {str(payment.id) for payment in await read_all(database)} == set(found.paid.values())
        await everything_settles(database, len(found.paid))
        assert await is_sound(found.settings)
        claimed = [process.lines("payment.claimed") for process in (found.old_worker, found.worker)]
        assert all(claimed), "one of the workers has done nothing"
        await everything_is_allowed_after_the_upgrade(found)
        await everything_ends(database)
        assert await is_sound(found.settings)


async def older_worker_is_spared(found: Installation) -> None:
    """While it lives, our API refuses what it would do wrong, and nothing else."""
    async with found.shop(found.api, user="90") as shop:
        good = await shop.add_card("4242424242424242")
        for method_id in ("pm_test_visa", "pm_test_lost_card", good):
            problem(await shop.pay(payment_method_id=method_id), 503, "unavailable")
    async with found.shop(found.api, user="root", role="admin") as admin:
        workers = (await admin.http.get("/stats")).json()["workers"]
        assert {worker["version"] for worker in workers} == {None, VERSION}


async def everything_is_allowed_after_the_upgrade(found: Installation) -> None:
    found.old_worker.terminate()
    await found.old_worker.ended()
    await knows_of_0_1(found.api, is_gone=True)
    async with found.shop(found.api, user="91") as shop, found.shop(found.old_api, user="91") as old:
        answer = await shop.pay(payment_method_id="pm_test_visa", headers={"Prefer": "wait=20"})
        payment = answer.json()
        assert (answer.status_code, payment["status"], payment["outcome_rule"]) == (201, "COMPLETED", "card")
        # The old API shows the id, because it knows no names.
        shown = await old.payment(payment["id"])
        assert shown["status"] == "COMPLETED"
        assert re.fullmatch(r"[0-9a-f-]{36}", shown["payment_method_id"])


@on_postgresql
async def test_a_worker_of_0_1_charges_also_what_it_should_not_have_got(
    slow_gateway: MakeSettings, database: Database, tmp_path: Path
) -> None:
    """What was accepted before the API noticed it is charged at the rate: nothing stops, and nothing is lost."""
    settings = slow_gateway(payment_success_rate=1)
    source = unpack(tmp_path / "source")
    names = ("pm_test_visa", "pm_test_paypal", "pm_test_lost_card", "pm_test_random_debit")
    with processes(old := process_of_0_1("worker", tmp_path / "old", settings, source=source)):
        await old.ready()
        async with database.transaction() as connection:
            now = await database.clock.now(connection)
            accepted = await accept(connection, now, [_intent(name) for name in names], rules=RULES)
        items = [one.payment.work_item for one in accepted if isinstance(one, Accepted)]
        broker = open_broker(settings.redis_url or "")
        assert await broker.publish(Queue.PROCESS, items)
        await everything_settles(database, len(names))
        await broker.close()
    ended = [await read(database, item.id) for item in items]
    assert [payment.status for payment in ended] == [
        PaymentStatus.FAILED if name == "pm_test_lost_card" else PaymentStatus.COMPLETED for name in names
    ]
    assert [payment.outcome_rule for payment in ended] == [
        OutcomeRule.CARD if name == "pm_test_lost_card" else OutcomeRule.RATE for name in names
    ]
    assert [payment.to_json()["payment_method_id"] for payment in ended] == list(names)


def _intent(name: str) -> Intent:
    return Intent(
        id=new_id(),
        user_id="1",
        created_by="user:1",
        visible=Visible(user_id="1"),
        order_id=name,
        payment_method_id=READY_MADE[name].id,
        ready_made=READY_MADE[name],
        amount=1585,
        currency="USD",
        description=None,
        metadata={},
        callback_url=None,
        correlation_id=None,
        idempotency=None,
    )
