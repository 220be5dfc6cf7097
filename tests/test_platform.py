"""The service on the platform: the whole story over real HTTP, with both upstream services as they really are."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select, update

from shared.config.settings import Settings, load_settings
from shared.database.engine import Database, open_database
from shared.database.tables import deliveries, delivery_attempts
from shared.delivery_lifecycle import DeliveryStatus
from shared.runtime import Runtime, open_runtime
from tests.support.api_client import RunningApi, card, held, opened, problem, served, token, working
from tests.support.processes import PaymentsProcess, processes
from tests.support.receivers import receiver
from tests.support.rows import assert_sound, ledger_entries
from tests.support.servers import free_port
from tests.support.upstreams import AuthService, Order, OrderService, running
from tests.support.waiting import calls_running, eventually

type MakeSettings = Callable[..., Settings]

SECRET = "a-secret-of-29-bytes-for-all!"  # as the platform's
assert len(SECRET) == 29
pytestmark = pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")

DATA_KEY = "a data key of the tests with more than 32 bytes"


@dataclass(slots=True, kw_only=True)
class Platform:
    """Both upstream services, our service beside them, and a user who has logged in and has a card."""

    auth: AuthService
    orders: OrderService
    runtime: Runtime
    running_api: RunningApi
    user: httpx.AsyncClient
    method_id: str

    @property
    def database(self) -> Database:
        return self.runtime.database

    async def pay(self, order: Order | int, **changes: Any) -> dict[str, Any]:
        """An accepted payment for the order."""
        number = order if isinstance(order, int) else order.id
        body = {"order_id": number, "payment_method_id": self.method_id, "amount": 1585, **changes}
        answer = await self.user.post("/payments", json=body, headers={"X-Correlation-ID": f"shop-{number}"})
        assert answer.status_code == 202, answer.text
        payment: dict[str, Any] = answer.json()
        return payment

    async def ended(self, payment: dict[str, Any]) -> dict[str, Any]:
        """The payment once it has ended."""
        answer = await self.user.get(f"/payments/{payment['id']}", headers={"Prefer": "wait=20"})
        found: dict[str, Any] = answer.json()
        assert found["status"] in {"COMPLETED", "FAILED"}, found
        return found

    async def order_update(self, payment: dict[str, Any], status: str = "delivered") -> dict[str, Any]:
        """Return the delivery to the order service once it has this status."""

        async def delivery() -> dict[str, Any] | None:
            shown = (await self.user.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
            return next((each for each in shown if each["kind"] == "order" and each["status"] == status), None)

        found: dict[str, Any] | None = await eventually(delivery, 20)
        assert found is not None
        return found


@asynccontextmanager
async def platform(make_settings: MakeSettings, *, workers: int = 1, **changes: Any) -> AsyncIterator[Platform]:
    """Everything, running."""
    async with AsyncExitStack() as stack:
        auth = await stack.enter_async_context(running(AuthService(secret=SECRET)))
        orders = await stack.enter_async_context(running(OrderService(secret=SECRET)))
        values = {
            "jwt_secret_key": SECRET,
            "data_key": DATA_KEY,
            "auth_service_url": auth.url,
            "order_service_url": orders.url,
            "payment_success_rate": 1,
            "order_not_found_after_s": 0.05,
            "order_backoff_s": 0.05,
            "webhook_retry_schedule": (0.05,) * 100,
            "breaker_open_s": 0.05,
        }
        runtime = open_runtime(make_settings(**{**values, **changes}))
        stack.push_async_callback(runtime.close)
        running_api = await stack.enter_async_context(served(runtime))
        for _ in range(workers):
            await stack.enter_async_context(working(runtime))
        user = await log_in(auth, running_api)
        answer = await user.post("/payments/methods", json=card())
        assert answer.status_code == 201, answer.text
        method_id = answer.json()["id"]
        yield Platform(
            auth=auth, orders=orders, runtime=runtime, running_api=running_api, user=user, method_id=method_id
        )


async def log_in(auth: AuthService, running_api: RunningApi) -> httpx.AsyncClient:
    """A user as the platform's gateway lets them through: a token of the auth service, and /api/payments."""
    async with httpx.AsyncClient(base_url=auth.url, trust_env=False) as client:
        answer = await client.post("/auth/login", json={"email": "shopper@example.com", "password": "correct horse"})
        bearer = answer.json()["access_token"]
    return running_api.client(base="/api", headers={"Authorization": f"Bearer {bearer}"})


# -- the story


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


# -- orders that must not be paid


async def test_an_order_that_does_not_fit_fails_its_payment_and_is_left_alone(make_settings: MakeSettings) -> None:
    async with platform(make_settings) as shop:
        unfit: dict[str, Order | int] = {
            "order_not_found": 999,
            "order_not_owned": shop.orders.place(user_id=2),
            "order_not_payable": shop.orders.place(status="CANCELLED"),
            "order_amount_mismatch": shop.orders.place(total="15.86"),
        }
        for code, order in unfit.items():
            ended = await shop.ended(await shop.pay(order))
            assert (ended["status"], ended["failure_code"], ended["outcome_rule"]) == ("FAILED", code, "order")
            assert await ledger_entries(shop.database, UUID(ended["id"])) == ["decline"]
        assert shop.orders.asked("PUT") == []
        # An order that fails a payment can be paid later.
        late = shop.orders.place()
        late.total = "1.00"
        assert (await shop.ended(await shop.pay(late)))["failure_code"] == "order_amount_mismatch"
        late.total = "15.85"
        assert (await shop.ended(await shop.pay(late)))["status"] == "COMPLETED"
        await assert_sound(shop.database)


async def test_an_order_service_that_stays_away_fails_the_payment_in_the_end(make_settings: MakeSettings) -> None:
    async with platform(make_settings, order_check_timeout=0.5) as shop:
        order = shop.orders.place()
        await shop.orders.down()
        payment = await shop.pay(order)
        ended = await shop.ended(payment)
        assert (ended["status"], ended["failure_code"]) == ("FAILED", "order_service_unavailable")
        history = (await shop.user.get(f"/payments/{payment['id']}/history")).json()["history"]
        assert [move["reason"] for move in history][-1] == "order_check_timed_out"
        await assert_sound(shop.database)
        await shop.orders.up()
        assert (await shop.ended(await shop.pay(order)))["status"] == "COMPLETED"


async def test_a_service_may_pay_for_the_owner_of_an_order(make_settings: MakeSettings) -> None:
    async with platform(make_settings) as shop:
        order = shop.orders.place()
        service = shop.running_api.bearing(token(SECRET, user_id="shop", role="service"))
        body = {"order_id": order.id, "user_id": 1, "payment_method_id": shop.method_id, "amount": 1585}
        answer = await service.post("/payments", json=body, headers={"Prefer": "wait=20"})
        assert answer.json()["status"] == "COMPLETED"


# -- an order that is cancelled while it is paid


async def test_an_order_that_is_cancelled_while_it_is_paid_is_a_conflict_that_is_emitted_once(
    make_settings: MakeSettings,
) -> None:
    async with platform(make_settings) as shop, receiver() as desk:
        service = shop.running_api.bearing(token(SECRET, user_id="desk", role="service"))
        registered = await service.post(
            "/webhook-endpoints",
            json={"name": "desk", "url": desk.url, "event_types": ["payment.order_conflict", "payment.failed"]},
        )
        assert registered.status_code == 201, registered.text
        order = shop.orders.place()
        shop.orders.cancels_before_update = True
        payment = await shop.pay(order)
        completed = await shop.ended(payment)
        # It was charged: what to do about it is for people.
        assert completed["status"] == "COMPLETED"
        delivery = await shop.order_update(payment, "exhausted")
        assert "cancelled" in delivery["last_error"]
        assert delivery["tries"] == 1
        await eventually(lambda: desk.requests, 20)
        event = desk.requests[0].verified(registered.json()["secret"])
        assert event["type"] == "payment.order_conflict"
        assert event["data"]["payment"] == completed
        again = await shop.running_api.bearing(shop.auth.token(1)).post(f"/webhook-deliveries/{delivery['id']}/resend")
        assert again.status_code == 202, again.text

        async def was_tried_again() -> bool:
            return len((await shop.order_update(payment, "exhausted"))["attempts"]) == 2

        await eventually(was_tried_again)
        shown = (await shop.user.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
        assert [each["event_type"] for each in shown].count("payment.order_conflict") == 1
        assert order.moves == []


async def test_a_receiver_of_the_usual_events_gets_no_conflict(make_settings: MakeSettings) -> None:
    async with platform(make_settings) as shop, receiver() as desk:
        service = shop.running_api.bearing(token(SECRET, user_id="desk", role="service"))
        await service.post("/webhook-endpoints", json={"name": "desk", "url": desk.url})
        shop.orders.cancels_before_update = True
        payment = await shop.pay(shop.orders.place(), callback_url=desk.url)
        await shop.order_update(payment, "exhausted")
        shown = (await shop.user.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
        assert {each["event_type"] for each in shown} == {"payment.completed"}


# -- what there is of it in the lists, and sending it again


async def test_a_delivery_to_the_order_service_is_sent_again_when_asked(make_settings: MakeSettings) -> None:
    async with platform(make_settings, webhook_retry_schedule=(0.05,)) as shop:
        order = shop.orders.place()
        # The client repeats a PUT by itself once.
        shop.orders.updates_to_drop = 4
        payment = await shop.pay(order)
        delivery = await shop.order_update(payment, "exhausted")
        assert (delivery["tries"], order.moves) == (2, [])
        again = await shop.running_api.bearing(shop.auth.token(1)).post(f"/webhook-deliveries/{delivery['id']}/resend")
        assert again.status_code == 202
        await shop.order_update(payment)
        assert order.moves == ["CONFIRMED"]


async def test_orders_of_payments_that_fail_are_not_confirmed(make_settings: MakeSettings) -> None:
    async with platform(make_settings, payment_success_rate=0) as shop:
        order = shop.orders.place()
        declined = await shop.pay(order, payment_method_id="pm_test_random_card")
        assert (await shop.ended(declined))["status"] == "FAILED"
        async with shop.database.read() as connection:
            found = (await connection.execute(select(deliveries.c.kind))).scalars().all()
        assert list(found) == []
        assert shop.orders.asked("PUT") == []


async def test_without_an_order_service_no_order_is_checked_or_updated(make_settings: MakeSettings) -> None:
    async with platform(make_settings, order_service_url=None) as shop:
        ended = await shop.ended(await shop.pay(12345))
        assert ended["status"] == "COMPLETED"
        shown = (await shop.user.get(f"/payments/{ended['id']}/deliveries")).json()["deliveries"]
        assert shown == []
        assert shop.orders.requests == []


async def test_a_worker_that_knows_no_order_service_leaves_the_update_to_be_tried_again(
    make_settings: MakeSettings,
) -> None:
    """As when the variable is taken away, or was forgotten on one of the workers."""
    async with platform(make_settings, webhook_retry_schedule=(0.05,)) as shop:
        order = shop.orders.place()
        delivery = await shop.order_update(await shop.pay(order))
    forgetful = shop.runtime.settings.model_copy(update={"order_service_url": None})
    runtime = open_runtime(forgetful)
    try:
        async with runtime.database.transaction() as connection:
            now = await runtime.database.clock.now(connection) - timedelta(seconds=1)
            await connection.execute(
                update(deliveries)
                .where(deliveries.c.id == UUID(delivery["id"]))
                .values(status=DeliveryStatus.PENDING, retries=0, due_at=now)
            )
        async with working(runtime):

            async def is_exhausted() -> bool:
                async with runtime.database.read() as connection:
                    found = (await connection.execute(select(deliveries.c.status, deliveries.c.last_error))).one()
                return bool(found.status == "exhausted" and "ORDER_SERVICE_URL" in found.last_error)

            await eventually(is_exhausted)
    finally:
        await runtime.close()


# -- where the platform's gateway finds us


HERE = ("/api/v1", "/payment-methods", "/payments")
THERE = ("/api", "/payments/methods", "/payments")


@pytest.fixture
async def running_api(make_settings: MakeSettings) -> AsyncIterator[RunningApi]:
    runtime = open_runtime(make_settings())
    async with held(opened(runtime)) as running_api:
        yield running_api
    await runtime.close()


async def test_payments_are_at_both_addresses_and_each_answers_with_its_own(running_api: RunningApi) -> None:
    bearer = dict(running_api.user().headers)
    made: dict[str, list[str]] = {"methods": [], "payments": []}
    for base, methods, payments in (HERE, THERE):
        client = running_api.client(base=base, headers={"Authorization": bearer["authorization"]})
        answer = await client.post(methods, json=card(), headers={"Idempotency-Key": "card"})
        method_id = answer.json()["id"]
        assert answer.headers["location"] == f"{base}{methods}/{method_id}"
        assert (await client.get(f"{methods}/{method_id}")).status_code == 200
        assert (await client.patch(f"{methods}/{method_id}", json={"display_name": "Mine"})).status_code == 200
        assert [each["id"] for each in (await client.get(methods)).json()["payment_methods"]] == [method_id]
        body = {"order_id": "77", "payment_method_id": method_id, "amount": 1585}
        answer = await client.post(payments, json=body, headers={"Idempotency-Key": "pay"})
        payment_id = answer.json()["id"]
        assert answer.status_code == 202
        assert answer.headers["location"] == f"{base}{payments}/{payment_id}"
        for part in ("", "/status", "/history", "/deliveries"):
            assert (await client.get(f"{payments}/{payment_id}{part}")).status_code == 200
        listed = (await client.get(payments, params={"order_id": "77"})).json()["payments"]
        assert [each["id"] for each in listed] == [payment_id]
        made["methods"].append(method_id)
        made["payments"].append(payment_id)
    # The same key is the same request, wherever it comes in.
    for ids in made.values():
        assert len(set(ids)) == 1


async def test_the_platforms_addresses_do_the_rest_as_well(running_api: RunningApi) -> None:
    client = running_api.client(base="/api", headers={"Authorization": running_api.user().headers["authorization"]})
    method_id = (await client.post("/payments/methods", json=card())).json()["id"]
    body = {"order_id": "78", "payment_method_id": method_id, "amount": 1585}
    payment_id = (await client.post("/payments", json=body)).json()["id"]
    assert (await client.post(f"/payments/{payment_id}/cancel")).json()["status"] == "CANCELLED"
    assert (await client.delete(f"/payments/methods/{method_id}")).status_code == 204
    missing = await client.get("/payments/nothing")
    assert problem(missing, 404, "not_found")["instance"] == "/api/payments/nothing"
    problem(await running_api.client(base="/api").get("/payments"), 401, "invalid_token")
    for elsewhere in ("/webhook-endpoints", "/callback-secret", "/payment-methods", "/v1/payments/methods"):
        problem(await client.get(elsewhere), 404, "not_found")


# -- readiness


async def test_readiness_says_how_the_upstream_services_are_and_asks_them_once_in_a_while(
    make_settings: MakeSettings,
) -> None:
    async with running(AuthService(secret=SECRET)) as auth, running(OrderService(secret=SECRET)) as orders:
        settings = make_settings(auth_service_url=auth.url, order_service_url=orders.url, ready_cache_s=60)
        runtime = open_runtime(settings)
        try:
            async with opened(runtime) as running_api:
                client = running_api.client(base="")
                answers = await asyncio.gather(*(client.get("/health/ready") for _ in range(20)))
                for answer in answers:
                    checks = answer.json()["checks"]
                    assert (checks["auth_service"], checks["order_service"]) == ("ready", "ready")
                assert [len(service.asked("GET", "/health")) for service in (auth, orders)] == [1, 1]
        finally:
            await runtime.close()


async def test_upstream_services_that_are_sick_or_gone_or_hang_are_not_ready_and_we_still_are(
    make_settings: MakeSettings,
) -> None:
    async with running(AuthService(secret=SECRET)) as auth, running(OrderService(secret=SECRET)) as orders:
        settings = make_settings(
            auth_service_url=auth.url, order_service_url=orders.url, ready_cache_s=0, ready_timeout_s=0.3
        )
        runtime = open_runtime(settings)
        try:
            async with opened(runtime) as running_api:
                client = running_api.client(base="")

                async def words() -> tuple[int, str, str]:
                    answer = await client.get("/health/ready")
                    checks = answer.json()["checks"]
                    return answer.status_code, checks["auth_service"], checks["order_service"]

                auth.is_sick, orders.held = True, asyncio.Event()
                assert await words() == (200, "not_ready", "not_ready")
                auth.is_sick = False
                orders.held.set()
                orders.held = None
                await orders.down()
                assert await words() == (200, "ready", "not_ready")
                await orders.up()
                assert await words() == (200, "ready", "ready")
        finally:
            await runtime.close()


async def test_a_question_that_its_caller_has_left_ends_with_the_api(make_settings: MakeSettings) -> None:
    async with running(OrderService(secret=SECRET)) as orders:
        orders.held = asyncio.Event()
        runtime = open_runtime(make_settings(order_service_url=orders.url, ready_timeout_s=10))
        try:
            async with opened(runtime) as running_api:
                assert running_api.api is not None
                caller = asyncio.create_task(running_api.api.readiness.are_healthy())
                await eventually(lambda: orders.requests)
                caller.cancel()
                await asyncio.wait([caller])
                assert calls_running() == 1
            assert calls_running() == 0
        finally:
            await runtime.close()
