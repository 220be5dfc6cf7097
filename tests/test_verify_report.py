"""The report of `payments verify`: what it lists, what the command prints, and what the API shows of the last one."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import orjson
import pytest
from sqlalchemy import delete, func, select, update
from typer.testing import CliRunner

from api.schemas.operations import VERIFY_REPORT_EXAMPLE, VerifyReport
from cli.main import app
from cli.verify.lines import lines
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.tables import deliveries, events, payments, verify_reports
from shared.verify.breaches import PROMISES, BreachKind
from shared.verify.kinds import KINDS
from shared.verify.report import document
from shared.verify.reports import REPORTS_KEPT, keep_report, last_report
from shared.verify.scan import Found, Scan
from shared.verify.verifier import verify_installation
from tests.support.processes import environment_of
from tests.support.verified import NOW, World, build, look, of_delivery, record_entry

pytest_plugins = ["tests.support.api_fixtures"]


@pytest.fixture
async def world(database: Database, settings: Settings) -> World:
    return await build(database, settings)


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
    assert (breaches.total, len(breaches.shown), report.breaches_total) == (3, 2, 3)
    assert {invariant.name: invariant.breaches for invariant in report.invariants}["event"] == 3
    said = "\n".join(line for line, _ in lines(few, took_s=1))
    assert str(breaches.shown[0]["payment_id"]) in said
    assert KINDS[BreachKind.EVENT_MISSING].what_to_do in said
    assert "and 1 more" in said
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
        await record_entry(connection, world.cancelled, "sale", 1)
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


async def test_a_claim_may_last_as_long_as_the_settings_say(
    make_settings: Callable[..., Settings], database: Database, world: World
) -> None:
    due_at = datetime.now(UTC) + timedelta(minutes=10)
    async with database.transaction() as connection:
        await connection.execute(update(payments).where(payments.c.id == world.processing).values(due_at=due_at))
        sending = update(deliveries).where(of_delivery(world, "endpoint"))
        await connection.execute(sending.values(status="sending", due_at=due_at))
    for changes, too_long in (
        ({}, {BreachKind.PAYMENT_LEASED_TOO_LONG, BreachKind.DELIVERY_LEASED_TOO_LONG}),
        ({"lease_s": 1200}, {BreachKind.DELIVERY_LEASED_TOO_LONG}),
        ({"webhook_lease_s": 1200}, {BreachKind.PAYMENT_LEASED_TOO_LONG}),
    ):
        done = await verify_installation(Scan(database), make_settings(**changes))
        assert done.found.totals.keys() == too_long


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///{folder}/empty.db", "run `payments migrate`"),
        (
            "postgresql://payments:hush@127.0.0.1:1/payments",
            "postgresql://127.0.0.1:1/payments does not answer",
        ),
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
    assert f"there is no folder {tmp_path / 'no'}" in output


async def test_the_last_report_is_for_admins_only(user: httpx.AsyncClient, service: httpx.AsyncClient) -> None:
    assert [(await client.get("/verify/last")).status_code for client in (user, service)] == [403, 403]
