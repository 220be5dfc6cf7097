"""The whole service in one process, over real HTTP, with a real receiver of webhooks, on both databases."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from api.main import listen, serve
from shared.broker.client import Broker, Queue
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.errors import ConfigurationError, DatabaseUnavailable
from shared.lifecycle import FailureCode, MethodType
from shared.payments.outcomes import Approved, Declined
from shared.payments.payment import Payment
from shared.runtime import Runtime, open_runtime
from shared.simulation.ledger_entries import EntryKind
from tests.support.messages import items_in
from tests.support.processes import Shop
from tests.support.receivers import receiver
from tests.support.rows import (
    accepted,
    are_settled,
    assert_sound,
    claimed,
    ledger_entries,
    read,
    read_all,
    reasons,
    write,
)
from tests.support.servers import ValkeyServer
from tests.support.waiting import eventually
from worker.gateway.ledger import Entry, Ledger
from worker.main import WorkerProcess

type MakeSettings = Callable[..., Settings]

NOW = datetime.now(UTC).replace(microsecond=0)
LONG_AGO = NOW - timedelta(hours=1)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Runtime]:
    runtime = open_runtime(settings)
    try:
        yield runtime
    finally:
        await runtime.close()


@asynccontextmanager
async def api(runtime: Runtime) -> AsyncIterator[None]:
    """The API on its port until the block ends."""
    settings, stop = runtime.settings, asyncio.Event()
    async with asyncio.timeout(60):
        serving = asyncio.create_task(serve(runtime, listen(settings.host, settings.port), stop))
        try:
            yield
        finally:
            stop.set()
            await serving


@asynccontextmanager
async def worker(runtime: Runtime) -> AsyncIterator[WorkerProcess]:
    """A worker until the block ends."""
    process, stop = WorkerProcess(runtime), asyncio.Event()
    working = asyncio.create_task(process.run(stop))
    try:
        await eventually(lambda: process.processor.free or working.done())
        yield process
    finally:
        stop.set()
        await working


@dataclass
class Service:
    settings: Settings
    runtime: Runtime
    shop: Shop

    @property
    def database(self) -> Database:
        return self.runtime.database


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Service]:
    """API and worker as in `payments up`, and a client with a card."""
    async with opened(settings) as runtime, api(runtime), worker(runtime), Shop(settings) as shop:
        await shop.add_card()
        yield Service(settings, runtime, shop)


async def test_a_payment_goes_all_the_way_from_the_intent_to_a_signed_webhook(make_settings: MakeSettings) -> None:
    async with running(make_settings(payment_success_rate=1)) as service, receiver() as shop_server:
        answer = await service.shop.pay(
            callback_url=shop_server.url, headers={"Prefer": "wait=20", "X-Correlation-ID": "order-4711"}
        )
        assert answer.status_code == 201, answer.text
        payment = answer.json()
        assert (payment["status"], payment["sequence"]) == ("COMPLETED", 3)
        await eventually(lambda: shop_server.requests)
        [request] = shop_server.requests
        secret = (await service.shop.http.get("/callback-secret")).json()["secret"]
        event = request.verified(secret)
        assert event["type"] == "payment.completed"
        assert event["data"]["payment"] == payment
        assert {name.lower(): value for name, value in request.headers.items()}["x-correlation-id"] == "order-4711"
        history = (await service.shop.http.get(f"/payments/{payment['id']}/history")).json()["history"]
        assert [move["reason"] for move in history] == ["accepted", "claimed", "gateway_approved"]

        async def is_delivered() -> bool:
            shown = (await service.shop.http.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
            return bool([delivery["status"] for delivery in shown] == ["delivered"])

        await eventually(is_delivered)
        assert await ledger_entries(service.database, UUID(payment["id"])) == ["authorize", "capture"]


async def test_a_declined_card_fails_and_the_order_can_be_paid_with_another(make_settings: MakeSettings) -> None:
    async with running(make_settings(payment_success_rate=1)) as service:
        good = service.shop.method_id
        await service.shop.add_card("4000000000009995")
        wait = {"Prefer": "wait=20"}
        declined = await service.shop.pay(order_id="7", headers=wait)
        assert (declined.status_code, declined.json()["failure_code"]) == (201, "insufficient_funds")
        paid = await service.shop.pay(order_id="7", payment_method_id=good, headers=wait)
        assert paid.json()["status"] == "COMPLETED"
        await assert_sound(service.database)


async def test_many_payments_of_every_kind_end_and_the_ledger_agrees(make_settings: MakeSettings) -> None:
    async with running(make_settings(payment_success_rate=0.6)) as service:
        debit = await service.shop.add_card("4000056655665556", "DEBIT_CARD")
        methods = [service.shop.method_id, debit]
        await asyncio.gather(*(service.shop.accepted(payment_method_id=methods[i % 2]) for i in range(80)))
        await eventually(lambda: are_settled(service.database, 80), timeout_s=60)
        await assert_sound(service.database)
        found = await read_all(service.database)
        assert {payment.status.value for payment in found} == {"COMPLETED", "FAILED"}
        assert "network_error" in {payment.failure_code for payment in found}  # also after its retries


# -- begun in the middle: what a killed worker leaves

CHARGED = Approved("stripe_mock", "ch_of_the_first_worker", {"authorization_code": "A1B2C3"}, "rate")
REFUSED = Declined("stripe_mock", FailureCode.CARD_DECLINED, "The issuer declined the card.", {}, "rate")
CREDIT, DEBIT = MethodType.CREDIT_CARD, MethodType.DEBIT_CARD
LEFT_BEHIND: dict[str, tuple[MethodType, list[EntryKind], list[str]]] = {
    "before anything": (CREDIT, [], ["authorize", "capture"]),
    "after the authorization": (CREDIT, [EntryKind.AUTHORIZE], ["authorize", "capture"]),
    "after the capture": (CREDIT, [EntryKind.AUTHORIZE, EntryKind.CAPTURE], ["authorize", "capture"]),
    "after the sale": (DEBIT, [EntryKind.SALE], ["sale"]),
    "after the decline": (CREDIT, [EntryKind.DECLINE], ["decline"]),
}


def left_behind(method_type: MethodType) -> Payment:
    """A payment in whose middle a worker was killed; its lease is over."""
    return claimed(LONG_AGO, method={"type": method_type, "details": {}, "scenario": None})


async def note(database: Database, row: Payment, kinds: Sequence[EntryKind]) -> None:
    """Put on record what the gateway had done by then."""
    ledger = Ledger(database, batch_max=10, queue_max=10)
    run = asyncio.create_task(ledger.run())
    for kind in kinds:
        answer = REFUSED if kind is EntryKind.DECLINE else replace(CHARGED, transaction_id=f"ch_{row.id}")
        await ledger.record_entry(Entry(row.id, kind, row.amount, row.currency, answer))
    ledger.close()
    await run


async def test_whatever_moment_a_worker_was_killed_at_the_next_one_charges_once(make_settings: MakeSettings) -> None:
    async with opened(make_settings(payment_success_rate=1)) as runtime:
        database = runtime.database
        rows = {moment: left_behind(method_type) for moment, (method_type, _, _) in LEFT_BEHIND.items()}
        await write(database, *rows.values())
        for moment, (_, kinds, _) in LEFT_BEHIND.items():
            await note(database, rows[moment], kinds)
        async with worker(runtime):
            await eventually(lambda: are_settled(database, len(rows)))
        await assert_sound(database)
        for moment, (_, kinds, expected) in LEFT_BEHIND.items():
            payment = await read(database, rows[moment].id)
            assert await ledger_entries(database, payment.id) == expected, moment
            assert payment.status == ("FAILED" if expected == ["decline"] else "COMPLETED"), moment
            if kinds and expected != ["decline"]:
                assert payment.gateway_transaction_id == f"ch_{payment.id}", "the first worker's charge was not found"
            assert (await reasons(database, payment.id))[:3] == ["accepted", "claimed", "lease_expired"]


async def test_duplicate_late_and_disordered_messages_change_nothing(make_settings: MakeSettings) -> None:
    async with opened(make_settings(payment_success_rate=1)) as runtime:
        database = runtime.database
        rows = [accepted(LONG_AGO) for _ in range(30)]
        items = await write(database, *rows)
        future = [WorkItem(item.id, 9) for item in items]
        for batch in (items[::-1], items, future, items[10:20], items):
            await runtime.broker.publish(Queue.PROCESS, batch)
        async with worker(runtime) as process:
            await eventually(lambda: are_settled(database, 30))
            for batch in (
                items,
                future,
                [WorkItem(item.id, 1) for item in items],
                [WorkItem(item.id, 2) for item in items],
            ):
                await runtime.broker.publish(Queue.PROCESS, batch)
            await eventually(lambda: is_empty(runtime.broker))
            await eventually(lambda: process.processor.free == runtime.settings.worker_concurrency)
        await assert_sound(database)
        assert {payment.sequence for payment in await read_all(database)} == {3}


async def is_empty(broker: Broker) -> bool:
    return not await broker.arq_connection.zcard(Queue.PROCESS)


async def test_without_a_single_message_the_relay_alone_brings_everything(make_settings: MakeSettings) -> None:
    async with opened(make_settings()) as runtime:
        await write(runtime.database, *(accepted(LONG_AGO) for _ in range(20)))
        async with worker(runtime):
            await eventually(lambda: are_settled(runtime.database, 20))
        await assert_sound(runtime.database)


# -- several workers


def slow_gateway(make_settings: MakeSettings, **changes: Any) -> Settings:
    """Ten slots, and payments that stay in the gateway long enough to be counted there."""
    values = {
        "worker_concurrency": 10,
        "payment_processing_delay_min": 300,
        "payment_processing_delay_max": 500,
        "payment_success_rate": 1,
        "poll_delay_ms": 20,
    }
    return make_settings(**{**values, **changes})


async def processing(database: Database) -> set[UUID]:
    """The payments that a worker has claimed and not settled."""
    return {payment.id for payment in await read_all(database) if payment.status == "PROCESSING"}


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_workers_share_the_work_and_none_takes_more_than_its_slots(make_settings: MakeSettings) -> None:
    settings = slow_gateway(make_settings)
    async with opened(settings) as one, opened(settings) as other, worker(one) as left, worker(other) as right:

        async def all_settled() -> bool:
            assert max(left.processor.in_gateway, right.processor.in_gateway) <= 10
            return await are_settled(one.database, 60)

        items = await write(one.database, *(accepted(datetime.now(UTC)) for _ in range(60)))
        for start in range(0, 60, 20):
            await one.broker.publish(Queue.PROCESS, items[start : start + 20])
        await eventually(all_settled, timeout_s=60)
        await assert_sound(one.database)
        assert {payment.lease_version for payment in await read_all(one.database)} == {1}
    shares = sorted((left.processor.settled, right.processor.settled))
    assert sum(shares) == 60
    assert shares[1] - shares[0] <= 0.25 * 30, shares


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_a_full_worker_leaves_payments_to_others(make_settings: MakeSettings) -> None:
    """Ten payments keep the first worker busy; the eleventh is taken by the second long before a slot is free."""
    settings = slow_gateway(
        make_settings, payment_processing_delay_min=20_000, payment_processing_delay_max=20_000, lease_s=31
    )
    quick = settings.model_copy(update={"payment_processing_delay_min": 0, "payment_processing_delay_max": 0})
    async with opened(settings) as one, opened(quick) as other:
        items = await write(one.database, *(accepted(datetime.now(UTC)) for _ in range(11)))
        full, stop = WorkerProcess(one), asyncio.Event()
        working = asyncio.create_task(full.run(stop))
        await one.broker.publish(Queue.PROCESS, items)
        await eventually(lambda: full.processor.in_gateway == 10)
        [leftover] = {item.id for item in items} - await processing(one.database)
        async with worker(other):
            await eventually(lambda: is_completed(other.database, leftover))
        assert full.processor.in_gateway == 10
        working.cancel()
        await asyncio.wait([working], timeout=10)
        assert working.done()


async def is_completed(database: Database, payment_id: UUID) -> bool:
    return (await read(database, payment_id)).status == "COMPLETED"


# -- stopping, and dying


async def test_stopping_finishes_what_is_in_the_gateway_and_leaves_the_rest_in_the_queue(
    make_settings: MakeSettings,
) -> None:
    settings = slow_gateway(make_settings)
    async with opened(settings) as runtime:
        items = await write(runtime.database, *(accepted(datetime.now(UTC)) for _ in range(25)))
        process, stop = WorkerProcess(runtime), asyncio.Event()
        working = asyncio.create_task(process.run(stop))
        await runtime.broker.publish(Queue.PROCESS, items)
        await eventually(lambda: process.processor.in_gateway == 10)
        began = await processing(runtime.database)
        stop.set()
        async with asyncio.timeout(20):
            await working
        found = await read_all(runtime.database)
        assert {payment.id for payment in found if payment.status == "COMPLETED"} >= began
        assert {payment.status.value for payment in found} == {"COMPLETED", "PENDING"}
        waiting = {item.id for item in await items_in(runtime.broker, Queue.PROCESS)}
        assert waiting == {payment.id for payment in found if payment.status == "PENDING"}
        async with worker(runtime):
            await eventually(lambda: are_settled(runtime.database, 25), timeout_s=30)
        assert {payment.lease_version for payment in await read_all(runtime.database)} == {1}


class Broken(Broker):
    """A broker with a bug that shows when the relay asks whether Redis answers."""

    def __init__(self, whole: Broker) -> None:
        super().__init__(whole.arq_connection)
        self.is_broken = False

    async def probe(self) -> bool:
        if self.is_broken:
            raise KeyError("a bug of ours")
        return await super().probe()


async def test_a_part_that_dies_takes_the_worker_with_it_also_with_payments_in_the_gateway(
    make_settings: MakeSettings,
) -> None:
    """No worker stays that looks alive and takes nothing: it ends, another is started, and leases end."""
    settings = slow_gateway(
        make_settings, payment_processing_delay_min=20_000, payment_processing_delay_max=20_000, lease_s=31
    )
    async with opened(settings) as sound:
        broker = Broken(sound.broker)
        runtime = replace(sound, broker=broker)
        items = await write(runtime.database, *(accepted(datetime.now(UTC)) for _ in range(15)))
        await broker.publish(Queue.PROCESS, items)
        process = WorkerProcess(runtime)
        working = asyncio.create_task(process.run(asyncio.Event()))
        await eventually(lambda: process.processor.in_gateway == 10)
        broker.is_broken = True
        await asyncio.wait([working], timeout=10)
        assert working.done(), "it hangs"
        error = working.exception()
        assert isinstance(error, ExceptionGroup)
        assert error.subgroup(KeyError) is not None
        for payment in await read_all(runtime.database):
            assert payment.due_at is not None
            assert payment.due_reason in {"claimed", "lease_expired"}


async def test_a_metrics_port_that_is_taken_stops_the_start_with_its_name(make_settings: MakeSettings) -> None:
    with listen("127.0.0.1", 0) as taken:
        settings = make_settings(metrics_port=taken.getsockname()[1])
        async with opened(settings) as runtime:
            with pytest.raises(ConfigurationError, match="METRICS_PORT"):
                await WorkerProcess(runtime).run(asyncio.Event())


# -- Redis and database come and go


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_without_redis_intents_are_accepted_at_once_and_processed_when_it_is_back(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    with ValkeyServer(tmp_path / "own") as valkey:
        async with running(make_settings(redis_url=valkey.url)) as service:
            await service.shop.accepted()
            for trouble, relief in ((valkey.kill, valkey.start), (valkey.pause, valkey.resume)):
                trouble()
                for _ in range(5):
                    started = monotonic()
                    await service.shop.accepted()
                    assert monotonic() - started < 0.5
                relief()
            await eventually(lambda: are_settled(service.database, 11), timeout_s=30)
            await assert_sound(service.database)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_while_another_process_holds_the_write_lock_answers_are_503_and_then_all_goes_on(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(payment_success_rate=1, payment_processing_delay_min=300, payment_processing_delay_max=400)
    async with running(settings) as service:
        first = [await service.shop.accepted() for _ in range(3)]
        await eventually(lambda: processing(service.database))
        file = settings.sqlalchemy_url.database or ""
        with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
            # A transaction of ours may have to end before.
            await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
            started = monotonic()
            answer = await service.shop.pay()
            refused_after_s = monotonic() - started
            assert answer.status_code == 503, answer.text
            assert answer.json()["code"] == "unavailable"
            assert int(answer.headers["Retry-After"]) >= 1
            assert refused_after_s < 2 * settings.database_timeout_s
            assert (await service.shop.http.get(f"/payments/{first[0]}")).status_code == 200  # readers pass
            other.execute("ROLLBACK")
        await service.shop.accepted()
        await eventually(lambda: are_settled(service.database, 4), timeout_s=30)
        await assert_sound(service.database)
        assert {payment.lease_version for payment in await read_all(service.database)} == {1}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_no_writer_waits_for_all_the_writers_before_it(make_settings: MakeSettings) -> None:
    async with opened(make_settings(database_timeout_s=0.5)) as runtime:

        async def write_something() -> None:
            async with runtime.database.transaction() as connection:
                await connection.execute(text("SELECT 1"))

        with closing(sqlite3.connect(runtime.settings.sqlalchemy_url.database or "", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            started = monotonic()
            answers = await asyncio.gather(*(write_something() for _ in range(10)), return_exceptions=True)
            took_s = monotonic() - started
        assert {type(answer) for answer in answers} == {DatabaseUnavailable}
        # Two seconds each, one after the other, would be twenty.
        assert took_s < 10
        await write_something()
