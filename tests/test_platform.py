"""The service on the platform: the whole story over real HTTP, with both upstream services as they really are."""

import asyncio
from functools import partial
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy import update

from shared.config.settings import load_settings
from shared.database.engine import open_database
from shared.database.tables import deliveries, delivery_attempts
from shared.delivery_lifecycle import DeliveryStatus
from tests.support.api_client import card
from tests.support.auth_standins import AuthService
from tests.support.order_standins import Order, OrderService
from tests.support.platforms import SECRET, MakeSettings, platform
from tests.support.processes import PaymentsProcess, processes
from tests.support.rows import assert_sound, ledger_entries
from tests.support.servers import free_port
from tests.support.standins import running
from tests.support.waiting import eventually

pytestmark = pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")


async def test_a_user_logs_in_orders_and_pays_and_the_order_is_confirmed_once(make_settings: MakeSettings) -> None:
    async with platform(make_settings) as shop:
        order = shop.orders.place()
        payment = await shop.pay(order)
        assert payment["status"] == "PENDING"
        ended = await shop.ended(payment)
        assert (ended["status"], ended["order_id"], ended["user_id"]) == ("COMPLETED", str(order.id), "1")
        delivery = await shop.order_update(payment)
        assert (delivery["url"], delivery["tries"], delivery["event_type"]) == (None, 1, "payment.completed")
        assert [attempt["status_code"] for attempt in delivery["attempts"]] == [200]
        assert (order.status, order.moves) == ("CONFIRMED", ["CONFIRMED"])
        assert payment["id"] in order.notes[0]
        # Its answer is kept for a while.
        assert len(shop.auth.asked("GET", "/auth/verify")) == 1
        asked = shop.orders.asked("GET", "/orders") + shop.orders.asked("PUT")
        assert {request.headers["x-correlation-id"] for request in asked} == {f"shop-{order.id}"}
        again = await shop.user.post(
            "/payments", json={"order_id": order.id, "payment_method_id": shop.method_id, "amount": 1585}
        )
        assert again.json()["code"] == "order_already_paid"
        await assert_sound(shop.database)


@pytest.mark.parametrize("trouble", ["down", "sick and crashing", "bad gateway"])
async def test_while_the_order_service_is_away_payments_wait_for_it(make_settings: MakeSettings, trouble: str) -> None:
    async with platform(make_settings) as shop:
        order = shop.orders.place()
        orders, shop.orders.orders = shop.orders.orders, {}
        match trouble:
            case "down":
                await shop.orders.down()
            case "bad gateway":
                shop.orders.failing = 502
            case _:
                # And it does not find the order: every answer is a 500.
                shop.orders.is_sick = True
        payment = await shop.pay(order)

        async def has_waited() -> bool:
            history = (await shop.user.get(f"/payments/{payment['id']}/history")).json()["history"]
            return [move["reason"] for move in history].count("order_unreachable") >= 2

        await eventually(has_waited)
        waiting = (await shop.user.get(f"/payments/{payment['id']}")).json()
        assert waiting["status"] == "PROCESSING"
        assert await ledger_entries(shop.database, UUID(payment["id"])) == []  # the gateway was not asked
        shop.orders.failing, shop.orders.is_sick, shop.orders.orders = None, False, orders
        if trouble == "down":
            await shop.orders.up()
        assert (await shop.ended(payment))["status"] == "COMPLETED"
        await shop.order_update(payment)
        assert order.moves == ["CONFIRMED"]
        await assert_sound(shop.database)


async def test_an_order_service_that_goes_away_after_the_check_gets_its_update_when_it_is_back(
    make_settings: MakeSettings,
) -> None:
    slow = {"payment_processing_delay_min": 300, "payment_processing_delay_max": 300}
    async with platform(make_settings, **slow) as shop:
        order = shop.orders.place()
        payment = await shop.pay(order)
        await eventually(lambda: shop.orders.asked("GET", "/orders"))
        await shop.orders.down()
        assert (await shop.ended(payment))["status"] == "COMPLETED"

        async def has_failed_twice() -> bool:
            return len((await shop.order_update(payment, "pending"))["attempts"]) >= 2

        await eventually(has_failed_twice)
        await shop.orders.up()
        delivery = await shop.order_update(payment)
        assert delivery["attempts"][0]["status_code"] is None
        assert delivery["attempts"][0]["error"]
        assert order.moves == ["CONFIRMED"]


async def test_an_order_service_that_answers_slowly_is_waited_for(make_settings: MakeSettings) -> None:
    async with platform(make_settings) as shop:
        shop.orders.delay_s = 0.3
        orders = [shop.orders.place() for _ in range(5)]
        payments = [await shop.pay(order) for order in orders]
        for payment in payments:
            assert (await shop.ended(payment))["status"] == "COMPLETED"
            assert (await shop.order_update(payment))["tries"] == 1
        assert [order.moves for order in orders] == [["CONFIRMED"]] * 5


async def test_an_order_service_that_answers_too_slowly_is_away_and_asked_again(make_settings: MakeSettings) -> None:
    async with platform(make_settings, order_timeout_s=0.2) as shop:
        order = shop.orders.place()
        shop.orders.held = asyncio.Event()
        payment = await shop.pay(order)
        await eventually(lambda: len(shop.orders.asked("GET", "/orders")) >= 2)
        shop.orders.held.set()
        shop.orders.held = None
        assert (await shop.ended(payment))["status"] == "COMPLETED"
        await shop.order_update(payment)
        assert order.moves == ["CONFIRMED"]


@pytest.mark.parametrize("times", [1, 3, 5])
async def test_an_update_whose_answer_is_lost_is_one_transition(make_settings: MakeSettings, times: int) -> None:
    async with platform(make_settings) as shop:
        order = shop.orders.place()
        shop.orders.updates_to_lose = times
        payment = await shop.pay(order)
        assert (await shop.ended(payment))["status"] == "COMPLETED"
        await shop.order_update(payment)
        assert order.moves == ["CONFIRMED"]


async def test_a_worker_that_dies_between_the_update_and_its_record_leaves_one_transition(
    make_settings: MakeSettings,
) -> None:
    async with platform(make_settings) as shop:
        order = shop.orders.place()
        payment = await shop.pay(order)
        delivery = await shop.order_update(payment)
        # As a worker leaves it that is killed at that moment.
        async with shop.database.transaction() as connection:
            now = await shop.database.clock.now(connection)
            await connection.execute(
                delivery_attempts.delete().where(delivery_attempts.c.delivery_id == UUID(delivery["id"]))
            )
            await connection.execute(
                update(deliveries)
                .where(deliveries.c.id == UUID(delivery["id"]))
                .values(status=DeliveryStatus.SENDING, retries=0, attempts_total=0, delivered_at=None, due_at=now)
            )
        again = await shop.order_update(payment)
        assert again["tries"] == 1
        assert order.moves == ["CONFIRMED"]
        assert len(shop.orders.asked("PUT")) == 1


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_with_several_workers_and_lost_answers_every_order_is_confirmed_once(make_settings: MakeSettings) -> None:
    async with platform(make_settings, workers=2) as shop:
        orders = [shop.orders.place() for _ in range(30)]
        shop.orders.updates_to_lose = 20
        payments = [await shop.pay(order) for order in orders]
        for payment in payments:
            assert (await shop.ended(payment))["status"] == "COMPLETED"
            await shop.order_update(payment)
        assert [order.moves for order in orders] == [["CONFIRMED"]] * 30
        await assert_sound(shop.database)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_one_container_on_the_platform_that_is_killed_again_and_again_confirms_every_order_once(
    empty_database_url: str, tmp_path: Path
) -> None:
    """`payments up` with the variables that the platform sets: its PostgreSQL, no Redis, a secret of 29 bytes."""
    async with running(AuthService(secret=SECRET)) as auth, running(OrderService(secret=SECRET)) as orders:
        settings = load_settings(
            port=free_port(),
            database_url=empty_database_url,
            jwt_secret_key=SECRET,
            auth_service_url=auth.url,
            order_service_url=orders.url,
            payment_success_rate=1,
            payment_processing_delay_min=100,
            payment_processing_delay_max=300,
            lease_s=20,
            webhook_timeout=2,
            webhook_lease_s=13,
            webhook_retry_schedule=(1,) * 50,
        )
        placed = [orders.place() for _ in range(40)]
        orders.updates_to_lose = 15
        up = PaymentsProcess("up", tmp_path / "up", settings)
        with processes(up):
            await up.ready()
            bearer = auth.token(1)
            base = f"http://127.0.0.1:{settings.port}/api"
            headers = {"Authorization": f"Bearer {bearer}"}
            async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False, timeout=30) as user:
                method_id = (await user.post("/payments/methods", json=card())).json()["id"]
                for number, order in enumerate(placed):
                    body = {"order_id": order.id, "payment_method_id": method_id, "amount": 1585}
                    assert (await user.post("/payments", json=body)).status_code == 202
                    if number in {15, 30}:
                        await eventually(partial(is_confirmed, placed, number // 5), 60)
                        up.kill()
                        up.start()
                        await up.ready()
                await eventually(partial(is_confirmed, placed, len(placed)), 90)
                listed = (await user.get("/payments", params={"status": "COMPLETED", "limit": 100})).json()["payments"]
                assert len(listed) == len(placed)
            up.terminate()
            assert await up.ended() == 0
            assert "eyJ" not in up.output + up.errors
        assert [order.moves for order in placed] == [["CONFIRMED"]] * len(placed)
        database = open_database(settings)
        await assert_sound(database)
        await database.dispose()


def is_confirmed(placed: list[Order], least: int) -> bool:
    return len([order for order in placed if order.moves]) >= least
