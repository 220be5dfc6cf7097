"""`payments verify`: every breach that is planted is found, alone and where it is; sound work is never reported."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import Index, delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from typer.testing import CliRunner

from api.schemas import VERIFY_REPORT_EXAMPLE, VerifyReport
from cli.main import app
from cli.verify_kinds import KINDS, PROMISES, BreachKind
from cli.verify_report import document, lines
from cli.verify_scan import Found
from shared.config import Settings
from shared.db import Database
from shared.events import tell_of_conflicts
from shared.ids import new_id
from shared.models import (
    deliveries,
    events,
    gateway_ledger,
    payment_history,
    payments,
    verify_reports,
    webhook_endpoints,
)
from shared.runtime import Runtime
from shared.verification import REPORTS_KEPT, keep_report, last_report
from tests.api_client import APPROVED, Door, added, order, working
from tests.processes import environment_of
from tests.verified import LONG_AGO, NOW, World, accept, bind, book, build, look, repeat_row, settle, without

pytest_plugins = ["tests.api_fixtures"]

type Plant = Callable[[AsyncConnection, World], Awaitable[Any]]

PLANTS: dict[BreachKind, list[Plant]] = {}


@pytest.fixture
async def world(database: Database, settings: Settings) -> World:
    return await build(database, settings)


def plants(kind: BreachKind) -> Callable[[Plant], Plant]:
    """The function plants a breach of this kind, and no other."""

    def add(plant: Plant) -> Plant:
        PLANTS.setdefault(kind, []).append(plant)
        return plant

    return add


def of_move(payment_id: Any, sequence: int) -> Any:
    return (payment_history.c.payment_id == payment_id) & (payment_history.c.sequence == sequence)


def of_delivery(world: World, kind: str) -> Any:
    return (deliveries.c.payment_id == world.completed) & (deliveries.c.kind == kind)


@plants(BreachKind.HISTORY_GAP)
async def a_move_is_gone(connection: AsyncConnection, world: World) -> None:
    await connection.execute(delete(payment_history).where(of_move(world.completed, 2)))


@plants(BreachKind.HISTORY_GAP)
async def a_move_has_another_number(connection: AsyncConnection, world: World) -> None:
    await connection.execute(update(payment_history).where(of_move(world.completed, 2)).values(sequence=0))


@plants(BreachKind.HISTORY_START)
async def a_history_starts_in_the_middle(connection: AsyncConnection, world: World) -> None:
    await connection.execute(
        update(payment_history).where(of_move(world.completed, 1)).values(previous_status="PROCESSING")
    )


@plants(BreachKind.HISTORY_MOVE)
async def a_move_begins_elsewhere(connection: AsyncConnection, world: World) -> None:
    await connection.execute(
        update(payment_history).where(of_move(world.completed, 3)).values(previous_status="PENDING")
    )


@plants(BreachKind.HISTORY_MOVE)
async def a_move_is_not_allowed(connection: AsyncConnection, world: World) -> None:
    await connection.execute(
        update(payment_history)
        .where(of_move(world.cancelled, 2))
        .values(previous_status="PENDING", new_status="FAILED")
    )
    await connection.execute(update(payments).where(payments.c.id == world.cancelled).values(status="FAILED"))
    of_end = (events.c.payment_id == world.cancelled) & (events.c.sequence == 2)
    await connection.execute(update(events).where(of_end).values(type="payment.failed"))
    await book(connection, world.cancelled, "decline", 1)


@plants(BreachKind.HISTORY_END)
async def a_status_was_set_by_hand(connection: AsyncConnection, world: World) -> None:
    await connection.execute(update(payments).where(payments.c.id == world.processing).values(status="PENDING"))


@plants(BreachKind.CHARGED_TWICE)
async def it_was_charged_again(connection: AsyncConnection, world: World) -> None:
    of_hold = (gateway_ledger.c.payment_id == world.completed) & (gateway_ledger.c.step == 1)
    await connection.execute(update(gateway_ledger).where(of_hold).values(kind="sale"))


@plants(BreachKind.CHARGED_TWICE)
async def it_is_being_processed_and_was_charged_again(connection: AsyncConnection, world: World) -> None:
    await book(connection, world.processing, "capture", 2)


@plants(BreachKind.COMPLETED_UNCHARGED)
async def the_books_know_nothing_of_it(connection: AsyncConnection, world: World) -> None:
    await connection.execute(delete(gateway_ledger).where(gateway_ledger.c.payment_id == world.completed))


@plants(BreachKind.COMPLETED_UNCHARGED)
async def it_was_voided(connection: AsyncConnection, world: World) -> None:
    of_capture = (gateway_ledger.c.payment_id == world.completed) & (gateway_ledger.c.step == 2)
    await connection.execute(update(gateway_ledger).where(of_capture).values(kind="void"))


@plants(BreachKind.COMPLETED_UNCHARGED)
async def it_was_sold_and_voided(connection: AsyncConnection, world: World) -> None:
    of_hold = (gateway_ledger.c.payment_id == world.completed) & (gateway_ledger.c.step == 1)
    await connection.execute(update(gateway_ledger).where(of_hold).values(kind="sale"))
    await it_was_voided(connection, world)


def charged_otherwise(**changes: Any) -> Plant:
    async def plant(connection: AsyncConnection, world: World) -> None:
        of_capture = (gateway_ledger.c.payment_id == world.completed) & (gateway_ledger.c.step == 2)
        await connection.execute(update(gateway_ledger).where(of_capture).values(**changes))

    return plant


plants(BreachKind.CHARGED_OTHERWISE)(charged_otherwise(amount=1998))
plants(BreachKind.CHARGED_OTHERWISE)(charged_otherwise(currency="EUR"))
plants(BreachKind.CHARGED_OTHERWISE)(charged_otherwise(answer={"transaction_id": "ch_2"}))
plants(BreachKind.CHARGED_OTHERWISE)(charged_otherwise(answer={}))


@plants(BreachKind.ENDED_CHARGED)
async def a_cancelled_one_was_charged(connection: AsyncConnection, world: World) -> None:
    await book(connection, world.cancelled, "sale", 1)


@plants(BreachKind.ENDED_CHARGED)
async def a_failed_one_was_charged(connection: AsyncConnection, world: World) -> None:
    of_failed = gateway_ledger.c.payment_id == world.failed
    await connection.execute(update(gateway_ledger).where(of_failed).values(kind="sale"))


@plants(BreachKind.ENDED_HELD)
async def a_failed_one_is_still_authorized(connection: AsyncConnection, world: World) -> None:
    of_failed = gateway_ledger.c.payment_id == world.failed
    await connection.execute(update(gateway_ledger).where(of_failed).values(kind="authorize"))


@plants(BreachKind.FAILED_UNCLOSED)
async def the_gateway_was_never_told_of_the_end(connection: AsyncConnection, world: World) -> None:
    await connection.execute(delete(gateway_ledger).where(gateway_ledger.c.payment_id == world.failed))


@plants(BreachKind.CHARGE_OF_NOBODY)
async def the_books_have_a_payment_of_their_own(connection: AsyncConnection, world: World) -> None:
    await book(connection, new_id(), "sale", 1)


@plants(BreachKind.KEY_OF_NOTHING)
async def a_key_of_a_payment_that_is_not_there(connection: AsyncConnection, world: World) -> None:
    await bind(connection, "user:1 POST /payments", new_id())


@plants(BreachKind.KEY_OF_NOTHING)
async def a_key_of_an_endpoint_that_is_not_there(connection: AsyncConnection, world: World) -> None:
    await bind(connection, "service:shop POST /webhook-endpoints", world.completed)


@plants(BreachKind.KEY_OF_NOTHING)
async def a_key_of_a_delivery_that_is_not_there(connection: AsyncConnection, world: World) -> None:
    await bind(connection, f"user:1 POST /webhook-deliveries/{world.completed}/resend", world.completed)


@plants(BreachKind.EVENT_MISSING)
async def an_event_is_gone(connection: AsyncConnection, world: World) -> None:
    of_failed = (events.c.payment_id == world.failed) & (events.c.type == "payment.failed")
    await connection.execute(delete(events).where(of_failed))


@plants(BreachKind.EVENT_UNCALLED)
async def an_event_says_something_else(connection: AsyncConnection, world: World) -> None:
    first = (events.c.payment_id == world.pending) & (events.c.sequence == 1)
    await repeat_row(connection, events, where=first, id=new_id(), sequence=2)


@plants(BreachKind.EVENT_UNCALLED)
async def a_conflict_is_told_of_what_was_not_paid(connection: AsyncConnection, world: World) -> None:
    await tell_of_conflicts(connection, [world.failed], now=LONG_AGO)


@plants(BreachKind.ENDPOINT_UNTOLD)
async def the_endpoint_was_forgotten(connection: AsyncConnection, world: World) -> None:
    await connection.execute(delete(deliveries).where(of_delivery(world, "endpoint")))


@plants(BreachKind.CALLBACK_UNTOLD)
async def the_callback_was_forgotten(connection: AsyncConnection, world: World) -> None:
    await connection.execute(delete(deliveries).where(of_delivery(world, "callback")))


@plants(BreachKind.ORDER_UNTOLD)
async def the_order_service_was_forgotten(connection: AsyncConnection, world: World) -> None:
    await connection.execute(delete(deliveries).where(of_delivery(world, "order")))


@plants(BreachKind.ORDER_UPDATE_SILENT)
async def an_order_update_ended_without_a_word(connection: AsyncConnection, world: World) -> None:
    ended = {"status": "exhausted", "due_at": None}
    await connection.execute(update(deliveries).where(of_delivery(world, "order")).values(**ended))


@plants(BreachKind.PAYMENT_NEVER_DUE)
async def nobody_will_look_at_a_payment(connection: AsyncConnection, world: World) -> None:
    await connection.execute(update(payments).where(payments.c.id == world.processing).values(due_at=None))


@plants(BreachKind.DELIVERY_NEVER_DUE)
async def nobody_will_look_at_a_delivery(connection: AsyncConnection, world: World) -> None:
    await connection.execute(update(deliveries).where(of_delivery(world, "callback")).values(due_at=None))


@plants(BreachKind.PAYMENT_OVERDUE)
async def a_payment_is_waited_for(connection: AsyncConnection, world: World) -> None:
    await connection.execute(update(payments).where(payments.c.id == world.pending).values(due_at=LONG_AGO))


@plants(BreachKind.DELIVERY_OVERDUE)
async def a_delivery_is_waited_for(connection: AsyncConnection, world: World) -> None:
    await connection.execute(update(deliveries).where(of_delivery(world, "endpoint")).values(due_at=LONG_AGO))


ONLY_WITHOUT_AN_INDEX = {BreachKind.LIVE_TWICE, BreachKind.EVENT_REPEATED, BreachKind.DELIVERY_REPEATED}


def test_every_kind_of_breach_is_planted_and_explained() -> None:
    assert set(PLANTS) | ONLY_WITHOUT_AN_INDEX == set(BreachKind) == set(KINDS)
    assert {kind.invariant for kind in KINDS.values()} == set(PROMISES)


@pytest.mark.parametrize(
    ("kind", "plant"),
    [
        pytest.param(kind, plant, id=f"{kind}-{number}")
        for kind, all_of_it in PLANTS.items()
        for number, plant in enumerate(all_of_it)
    ],
)
async def test_a_planted_breach_is_found_and_nothing_else(
    database: Database, world: World, kind: BreachKind, plant: Plant
) -> None:
    since = NOW - timedelta(seconds=1)
    assert (await look(database, orders_since=since)).totals == {}
    async with database.transaction() as connection:
        await plant(connection, world)
    found = await look(database, orders_since=since)
    assert found.totals == {kind: 1}
    [ids] = found.shown[kind]
    assert ids.keys() & {"payment_id", "key"}
    assert orjson.dumps(ids)


async def test_two_live_payments_of_an_order_are_found(database: Database, world: World) -> None:
    [index] = [index for index in payments.indexes if index.name == "uq_payments_live_order"]
    async with without(database, index):
        await accept(database, order_id=str(world.completed))
        found = await look(database)
        assert found.totals == {BreachKind.LIVE_TWICE: 1}
        [ids] = found.shown[BreachKind.LIVE_TWICE]
        assert (ids["payment_id"], ids["order_id"]) == (str(world.completed), str(world.completed))
        assert ids["other_payment_id"] != ids["payment_id"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("uq_deliveries_endpoint", "endpoint"), ("uq_deliveries_other", "callback"), ("uq_deliveries_other", "order")],
)
async def test_a_second_delivery_to_one_receiver_is_found(
    database: Database, world: World, name: str, kind: str
) -> None:
    [index] = [index for index in deliveries.indexes if index.name == name]
    assert isinstance(index, Index)
    async with without(database, index):
        async with database.transaction() as connection:
            await repeat_row(connection, deliveries, where=of_delivery(world, kind), id=new_id())
        found = await look(database, orders_since=NOW - timedelta(seconds=1))
        assert found.totals == {BreachKind.DELIVERY_REPEATED: 1}


async def test_a_second_event_of_one_move_is_found(database: Database, world: World) -> None:
    async with database.transaction() as connection:  # the same table without its constraints
        await connection.execute(text("CREATE TABLE copied AS SELECT * FROM events"))
        await connection.execute(text("ALTER TABLE events RENAME TO strict_events"))
        await connection.execute(text("ALTER TABLE copied RENAME TO events"))
    try:
        async with database.transaction() as connection:
            first = (events.c.payment_id == world.pending) & (events.c.sequence == 1)
            await repeat_row(connection, events, where=first, id=new_id())
        assert (await look(database)).totals == {BreachKind.EVENT_REPEATED: 1}
    finally:
        async with database.transaction() as connection:
            await connection.execute(text("DROP TABLE events"))
            await connection.execute(text("ALTER TABLE strict_events RENAME TO events"))


# -- what is no breach


async def test_an_empty_database_is_sound(database: Database) -> None:
    found = await look(database)
    assert (found.is_sound, found.payments, found.keys) == (True, 0, 0)
    assert found.oldest_due_s == {"payments": 0, "deliveries": 0}


@pytest.mark.parametrize("range_size", [1, 4, 5, 6, 1000])
async def test_every_payment_and_key_is_looked_at_once(database: Database, world: World, range_size: int) -> None:
    found = await look(database, range_size=range_size)
    assert (found.totals, found.payments, found.keys) == ({}, 5, 5)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"created_at": NOW, "updated_at": NOW}, id="registered in the same moment"),
        pytest.param({"updated_at": NOW + timedelta(minutes=5)}, id="changed later"),
        pytest.param({"updated_at": NOW - timedelta(seconds=30)}, id="changed a moment before"),
        pytest.param({"enabled": False}, id="disabled"),
        pytest.param({"deleted_at": LONG_AGO, "enabled": False}, id="deleted"),
        pytest.param({"event_types": ["payment.order_conflict"]}, id="of another type"),
    ],
)
async def test_an_endpoint_that_may_not_have_matched_is_no_breach(
    database: Database, world: World, changes: dict[str, Any]
) -> None:
    async with database.transaction() as connection:
        await connection.execute(delete(deliveries).where(of_delivery(world, "endpoint")))
        await connection.execute(
            update(webhook_endpoints).where(webhook_endpoints.c.id == world.endpoint).values(**changes)
        )
        await connection.execute(delete(deliveries).where(deliveries.c.endpoint_id == world.endpoint))
    assert (await look(database)).totals == {}


async def test_a_key_that_found_a_known_card_names_nothing_and_is_no_breach(database: Database) -> None:
    async with database.transaction() as connection:
        await bind(connection, "user:1 POST /payment-methods", new_id())
    assert (await look(database)).totals == {}


async def test_a_conflict_that_was_told_beside_a_completion_is_no_breach(database: Database, world: World) -> None:
    async with database.transaction() as connection:
        await tell_of_conflicts(connection, [world.completed], now=NOW)
    assert (await look(database)).totals == {}


async def test_who_completed_before_the_order_service_was_told_of_anything_is_no_breach(
    database: Database, settings: Settings
) -> None:
    earlier = LONG_AGO - timedelta(hours=1)
    early = await accept(database, at=earlier)
    async with database.transaction() as connection:
        await settle(connection, early, APPROVED, at=earlier, tells_order=False)
        await book(connection, early.id, "sale", 1)
    assert (await look(database, tells_orders=True)).totals == {}
    await build(database, settings)
    assert (await look(database, tells_orders=True)).totals == {}
    before = earlier - timedelta(seconds=1)
    assert (await look(database, tells_orders=False, orders_since=before)).totals == {}
    assert (await look(database, orders_since=before)).totals == {BreachKind.ORDER_UNTOLD: 1}


@pytest.mark.parametrize("status", ["delivered", "exhausted", "cancelled"])
async def test_an_order_update_that_was_delivered_or_failed_with_a_reason_is_no_breach(
    database: Database, world: World, status: str
) -> None:
    error = None if status == "delivered" else "the order was cancelled"
    ended = {"status": status, "last_error": error, "due_at": None}
    async with database.transaction() as connection:
        await connection.execute(update(deliveries).where(of_delivery(world, "order")).values(**ended))
    assert (await look(database, orders_since=LONG_AGO)).totals == {}


@pytest.mark.parametrize("kind", ["authorize", "sale"])
async def test_what_was_voided_may_have_failed(database: Database, world: World, kind: str) -> None:
    of_failed = gateway_ledger.c.payment_id == world.failed
    async with database.transaction() as connection:
        await connection.execute(update(gateway_ledger).where(of_failed).values(kind=kind))
        await book(connection, world.failed, "void", 2)
    assert (await look(database)).totals == {}


async def test_what_is_due_within_the_limit_is_no_breach_and_its_age_is_told(database: Database, world: World) -> None:
    at = datetime.now(UTC) - timedelta(seconds=20)
    async with database.transaction() as connection:
        await connection.execute(update(payments).where(payments.c.id == world.pending).values(due_at=at))
    found = await look(database, due_max_s=30)
    assert found.totals == {}
    assert 20 <= found.oldest_due_s["payments"] < 30
    assert (await look(database, due_max_s=10)).totals == {BreachKind.PAYMENT_OVERDUE: 1}


async def test_a_service_at_work_is_sound_at_every_moment(
    door: Door, runtime: Runtime, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    """Payments are accepted, charged, settled, cancelled and told while one scan follows the other."""
    (await service.post("/webhook-endpoints", json={"name": "shop", "url": "http://127.0.0.1:9/"})).raise_for_status()
    method = await added(user)

    async def pay(number: int) -> None:
        body = order(method, callback_url="http://127.0.0.1:9/")
        answer = await user.post("/payments", json=body, headers={"Idempotency-Key": f"k{number}"})
        if number % 5 == 0:
            await user.post(f"/payments/{answer.json()['id']}/cancel")

    async def pay_many() -> None:
        for start in range(0, 120, 20):
            await asyncio.gather(*(pay(number) for number in range(start, start + 20)))

    async def have_ended() -> bool:
        async with runtime.database.read() as connection:
            still_open = select(func.count()).select_from(payments).where(payments.c.due_at.is_not(None))
            return (await connection.execute(still_open)).scalar_one() == 0

    async with working(runtime):
        paying = asyncio.create_task(pay_many())
        scans = 0
        while not (paying.done() and await have_ended()):
            found = await look(runtime.database, range_size=50, tells_orders=False)
            assert found.totals == {}, found.shown
            scans += 1
        await paying
    assert scans > 3
    assert (await look(runtime.database, tells_orders=False)).payments == 120


# -- the report


async def test_a_report_lists_so_many_and_counts_all(database: Database, world: World) -> None:
    async with database.transaction() as connection:
        await connection.execute(delete(events))
    found = await look(database, range_size=1)
    few = Found(shown_max=2)
    for ids in found.shown[BreachKind.EVENT_MISSING]:
        few.note(BreachKind.EVENT_MISSING, ids)
    report = VerifyReport.model_validate(document(few, started_at=NOW, finished_at=NOW))
    [breaches] = report.breaches
    assert (breaches.total, len(breaches.shown), report.breaches_total) == (8, 2, 8)
    assert {invariant.name: invariant.breaches for invariant in report.invariants}["event"] == 8
    told = "\n".join(line for line, _ in lines(few, took_s=1))
    assert str(breaches.shown[0]["payment_id"]) in told
    assert KINDS[BreachKind.EVENT_MISSING].what_to_do in told
    assert "and 6 more" in told
    assert not report.is_sound


def test_the_example_in_the_documentation_is_a_report() -> None:
    example = VerifyReport.model_validate(VERIFY_REPORT_EXAMPLE)
    [breaches] = example.breaches
    known = KINDS[BreachKind(breaches.kind)]
    assert (breaches.words, breaches.invariant) == (known.words, known.invariant)
    assert [(invariant.name, invariant.promise) for invariant in example.invariants] == [
        (known.invariant, PROMISES[known.invariant])
    ]


async def test_the_latest_reports_are_kept(database: Database) -> None:
    async with database.transaction() as connection:
        for number in range(REPORTS_KEPT + 2):
            await keep_report(connection, {"number": number}, started_at=NOW, finished_at=NOW)
        assert await last_report(connection) == {"number": REPORTS_KEPT + 1}
        count = select(func.count()).select_from(verify_reports)
        assert (await connection.execute(count)).scalar_one() == REPORTS_KEPT


# -- the command and the API


async def run(settings: Settings, *arguments: str) -> tuple[int, str]:
    """`payments verify`, in a thread: it runs a loop of its own."""
    runner = CliRunner()
    done = await asyncio.to_thread(runner.invoke, app, ["verify", *arguments], env=environment_of(settings))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


async def test_the_command_says_sound_and_the_api_knows(
    settings: Settings, world: World, admin: httpx.AsyncClient, tmp_path: Path
) -> None:
    missing = await admin.get("/verify/last")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    file = tmp_path / "report.json"
    code, output = await run(settings, "--json", str(file))
    assert code == 0, output
    assert "5 payments and 5 idempotency keys" in output
    answer = await admin.get("/verify/last")
    assert answer.json() == orjson.loads(file.read_bytes())
    assert VerifyReport.model_validate(answer.json()).is_sound


async def test_the_command_ends_with_1_and_says_what_is_broken_and_what_to_do(
    settings: Settings, database: Database, world: World, admin: httpx.AsyncClient
) -> None:
    async with database.transaction() as connection:
        await book(connection, world.cancelled, "sale", 1)
    code, output = await run(settings)
    assert code == 1
    assert f"payment_id={world.cancelled} status=CANCELLED" in output
    assert KINDS[BreachKind.ENDED_CHARGED].what_to_do in output
    report = VerifyReport.model_validate((await admin.get("/verify/last")).json())
    [breaches] = report.breaches
    assert (breaches.kind, breaches.invariant) == ("ended_charged", "ledger")
    assert breaches.shown == [{"payment_id": str(world.cancelled), "status": "CANCELLED"}]


async def test_order_updates_are_asked_for_where_the_order_service_is_set(
    make_settings: Callable[..., Settings], database: Database, world: World
) -> None:
    async with database.transaction() as connection:
        await connection.execute(delete(deliveries).where(of_delivery(world, "order")))
    since = ("--orders-since", "2020-01-01T00:00:00Z")
    assert (await run(make_settings(), *since))[0] == 0
    assert (await run(make_settings(order_service_url="http://127.0.0.1:9"), *since))[0] == 1


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///{folder}/empty.db", "run `payments migrate`"),
        ("postgresql://payments:hush@127.0.0.1:1/payments", "The database does not answer"),
        ("mysql://x", "DATABASE_URL"),
    ],
)
async def test_the_command_ends_with_2_where_it_cannot_run(
    settings: Settings, tmp_path: Path, url: str, words: str
) -> None:
    broken = settings.model_copy(update={"database_url": url.format(folder=tmp_path)})
    code, output = await run(broken)
    assert code == 2
    assert words in output
    assert "hush" not in output


async def test_a_file_that_cannot_be_written_is_said(settings: Settings, tmp_path: Path) -> None:
    code, output = await run(settings, "--json", str(tmp_path / "no" / "report.json"))
    assert code == 2
    assert "No such file" in output


async def test_the_last_report_is_for_admins_only(user: httpx.AsyncClient, service: httpx.AsyncClient) -> None:
    assert [(await client.get("/verify/last")).status_code for client in (user, service)] == [403, 403]
