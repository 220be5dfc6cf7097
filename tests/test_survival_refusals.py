"""A database that refuses: valid requests are 503 meanwhile, no process ends, and soon after all is well again.

The service has the role of docs/operations.md and no more rights than that.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import httpx
import pytest

from shared.config.settings import Settings
from shared.database.migrations import migrate
from tests.support.processes import PaymentsProcess, Shop, processes
from tests.support.roles import PASSWORD, ROLE, ask_for_password, give_role
from tests.support.rows import assert_sound
from tests.support.servers import PostgresServer
from tests.support.survival import MakeSettings, Service, a_service, everything_ends, on_postgresql, opened
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.survival_fixtures"]

LASTS_S = 2.5
# What is promised.
WELL_WITHIN_S = 10.0
CUT = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'"  # noqa: S608
HBA = "COPY (VALUES ('{first}'), ('host all all 127.0.0.1/32 trust')) TO '{file}'; SELECT pg_reload_conf()"


@dataclass(frozen=True)
class Cause:
    """Statements of the superuser that begin and end it, in the database of the service or another one."""

    begin: str
    end: str
    inside: bool = False
    # Requests that need nothing of what is taken away are answered all the while.
    spares_some: bool = False
    is_seen: bool = True


CAUSES = {
    "no connections": Cause("ALTER DATABASE own ALLOW_CONNECTIONS false", "ALTER DATABASE own ALLOW_CONNECTIONS true"),
    "no login": Cause(f"ALTER ROLE {ROLE} NOLOGIN", f"ALTER ROLE {ROLE} LOGIN"),
    "other password": Cause(f"ALTER ROLE {ROLE} PASSWORD 'x'", f"ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'"),
    "reject": Cause(
        HBA.format(first=f"host all {ROLE} 127.0.0.1/32 reject", file="{file}"),
        HBA.format(first=f"host all {ROLE} 127.0.0.1/32 scram-sha-256", file="{file}"),
    ),
    "renamed database": Cause("ALTER DATABASE own RENAME TO away", "ALTER DATABASE away RENAME TO own"),
    "no connection free": Cause(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0", f"ALTER ROLE {ROLE} CONNECTION LIMIT -1"),
    "no right": Cause(
        f"REVOKE INSERT, UPDATE ON payments.payments FROM {ROLE}",
        f"GRANT INSERT, UPDATE ON payments.payments TO {ROLE}",
        inside=True,
        spares_some=True,
    ),
    "renamed table": Cause(
        "ALTER TABLE payments.payments RENAME TO away",
        "ALTER TABLE payments.away RENAME TO payments",
        inside=True,
        spares_some=True,
    ),
    "renamed column": Cause(
        "ALTER TABLE payments.payments RENAME COLUMN amount TO away",
        "ALTER TABLE payments.payments RENAME COLUMN away TO amount",
        inside=True,
        spares_some=True,
        is_seen=False,
    ),
    "renamed schema": Cause(
        "ALTER SCHEMA payments RENAME TO away", "ALTER SCHEMA away RENAME TO payments", inside=True
    ),
    "read only": Cause(
        "ALTER DATABASE own SET default_transaction_read_only = on",
        "ALTER DATABASE own RESET default_transaction_read_only",
        spares_some=True,
    ),
}


@asynccontextmanager
async def a_refused_service(
    make: MakeSettings, postgres: PostgresServer, folder: Path
) -> AsyncIterator[tuple[Service, Settings]]:
    """A service of the role with a password; at the end everything must be settled and sound."""
    await migrate(make(database_url=postgres.url_of("own")))
    settings = make(database_url=give_role(postgres, "own"), database_timeout_s=2, database_pool_size=4)
    ask_for_password(postgres)
    async with a_service(settings, folder) as service:
        for _ in range(3):
            await service.shop.accepted()
        yield service, settings
        async with opened(make(database_url=postgres.url_of("own"))) as database:
            await everything_ends(database)


async def meet(cause: Cause, service: Service, settings: Settings, postgres: PostgresServer) -> None:
    """Begin it and end it under load, and see how the service takes it."""
    place = "own" if cause.inside else "postgres"
    file = postgres.execute("SHOW hba_file").strip()
    ready_url = f"http://127.0.0.1:{settings.port}/health/ready"
    postgres.execute(f"{CUT}; " * (not cause.inside) + cause.begin.format(file=file) + f"; {CUT}", database=place)
    known = (await service.shop.http.get("/payments?limit=1")).status_code
    assert known in {200, 503}
    statuses, readiness = [], []
    until = monotonic() + LASTS_S
    while monotonic() < until:
        answers = await asyncio.gather(service.shop.pay(), service.shop.http.get("/payments"))
        for answer in answers:
            assert answer.status_code in {200, 202, 503}, answer.text
            assert answer.status_code != 503 or int(answer.headers["Retry-After"]) >= 1
            statuses.append(answer.status_code)
        async with httpx.AsyncClient(trust_env=False) as http:
            readiness.append((await http.get(ready_url)).status_code)
    postgres.execute(cause.end.format(file=file), database=place)
    ended_at = monotonic()
    if cause.is_seen:
        assert 503 in statuses
        assert readiness[-1] == 503
    if not cause.spares_some:
        assert set(statuses) == {503}
    await eventually(lambda: works(service.shop, ready_url), WELL_WITHIN_S)
    assert monotonic() - ended_at < WELL_WITHIN_S


async def works(shop: Shop, ready_url: str) -> bool:
    answers = await asyncio.gather(shop.pay(), shop.http.get("/payments"), shop.http.get(ready_url))
    assert {answer.status_code for answer in answers} <= {200, 202, 503}
    return [answer.status_code for answer in answers] == [202, 200, 200]


@pytest.mark.slow
@pytest.mark.timeout(400)
@on_postgresql
async def test_one_refusal_after_the_other_ends_no_process_and_loses_nothing(
    slow_gateway: MakeSettings, own_postgres: PostgresServer, tmp_path: Path, redis_url: str
) -> None:
    async with a_refused_service(slow_gateway, own_postgres, tmp_path) as (service, settings):
        for cause in CAUSES.values():
            await meet(cause, service, settings, own_postgres)


@pytest.mark.slow
@on_postgresql
@pytest.mark.parametrize("command", ["api and workers", "up"])
async def test_tables_that_are_locked_longer_than_the_role_waits_are_503(
    slow_gateway: MakeSettings, own_postgres: PostgresServer, tmp_path: Path, redis_url: str, command: str
) -> None:
    settings = slow_gateway(database_url=own_postgres.url_of("own"))
    await migrate(settings)
    own_postgres.execute("ALTER DATABASE own SET lock_timeout = '300ms'")
    lock = (
        "BEGIN; LOCK TABLE payments.payments, payments.deliveries IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(2); COMMIT"
    )
    async with a_service_or_up(settings, tmp_path, command) as shop:
        accepted = [await shop.accepted() for _ in range(3)]
        locking = asyncio.create_task(asyncio.to_thread(own_postgres.execute, lock, database="own"))
        statuses = set()
        while not locking.done():
            answer = await shop.pay()
            assert answer.status_code in {202, 503}, answer.text
            statuses.add(answer.status_code)
        await locking
        assert 503 in statuses
        await eventually(lambda: is_accepted(shop), WELL_WITHIN_S)
        assert accepted
        async with opened(settings) as database:
            await everything_ends(database)


@asynccontextmanager
async def a_service_or_up(settings: Settings, folder: Path, command: str) -> AsyncIterator[Shop]:
    if command != "up":
        async with a_service(settings, folder) as service:
            yield service.shop
        return
    up = PaymentsProcess("up", folder / "up", settings)
    with processes(up):
        await up.ready()
        async with Shop(settings) as shop:
            await shop.add_card()
            yield shop
        up.terminate()
        assert await up.ended() == 0, up.errors


async def is_accepted(shop: Shop) -> bool:
    return (await shop.pay()).status_code == 202


CHANGES = (
    "ALTER TABLE {table} ADD COLUMN extra text",
    "ALTER TABLE {table} DROP COLUMN extra",
    "REINDEX TABLE {table}",
    "ALTER TABLE {table} ALTER COLUMN created_at TYPE timestamptz(3)",
    "ALTER TABLE {table} ALTER COLUMN created_at TYPE timestamptz",
)


@pytest.mark.slow
@on_postgresql
async def test_a_table_that_is_changed_under_load_costs_at_most_a_503(
    slow_gateway: MakeSettings, own_postgres: PostgresServer, tmp_path: Path, redis_url: str
) -> None:
    settings = slow_gateway(database_url=own_postgres.url_of("own"))
    await migrate(settings)
    tables = [f"payments.{name}" for name in ("payments", "payment_history", "events", "gateway_ledger", "deliveries")]
    statuses: list[int] = []

    async def pay_and_read(shop: Shop, done: asyncio.Event) -> None:
        while not done.is_set():
            for answer in (await shop.pay(), await shop.http.get("/payments")):
                assert answer.status_code in {200, 202, 503}, answer.text
                statuses.append(answer.status_code)

    async with a_service(settings, tmp_path) as service, asyncio.TaskGroup() as clients:
        done = asyncio.Event()
        for _ in range(4):
            clients.create_task(pay_and_read(service.shop, done))
        for table in tables:
            for change in CHANGES:
                if "created_at" in change and table == "payments.deliveries":
                    continue
                await asyncio.to_thread(own_postgres.execute, change.format(table=table), database="own")
                await asyncio.sleep(0.1)
        done.set()
    assert statuses.count(202) > 10
    assert statuses.count(503) < len(statuses) / 10
    async with opened(settings) as database:
        await assert_sound(database)
