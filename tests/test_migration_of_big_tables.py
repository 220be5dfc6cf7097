"""`payments migrate` on a million payments, beside processes that go on writing as version 0.1 does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles
from time import monotonic

import pytest
from sqlalchemy import text

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.migrations import head, migrate
from shared.ids import new_id
from tests.support.migrating import downgrade, ran_migrate
from tests.support.survival import MakeSettings, on_postgresql, opened

pytest_plugins = ["tests.support.survival_fixtures"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OF_0_1 = "20261124_0003"
PAYMENTS = 1_000_000
# The longest wait of a write, in seconds.
WAIT_MAX_S = 1.0
WRITERS, PAUSE_S = 10, 0.05
READ_S = 2.0
# What reports and backups do first, and how long the next one comes later. The build of an index waits for the first,
# whose snapshot is old, and a change of the table for both.
READERS = {"SELECT id FROM payments LIMIT 1": 0.5, "LOCK TABLE payments IN ACCESS SHARE MODE": 0.9}

FILL = (
    """
    INSERT INTO payments (id, user_id, created_by, order_id, payment_method_id, amount, currency, metadata, method,
        status, sequence, attempt, gateway_tries, created_at, updated_at, processed_at)
    SELECT lpad(to_hex(n), 32, '0')::uuid, (n % 10000)::text, 'user:' || n % 10000, 'order-' || n,
        lpad(to_hex(n % 10000), 32, '0')::uuid, 1585, 'USD', '{}', '{"type": "CREDIT_CARD"}',
        CASE WHEN n % 20 = 0 THEN 'FAILED' ELSE 'COMPLETED' END, 3, 1, 0, now(), now(), now()
    FROM generate_series(1, :payments) n
    """,
    """
    INSERT INTO gateway_ledger (key, payment_id, step, kind, amount, currency, answer, created_at)
    SELECT lpad(to_hex(n), 32, '0') || ':' || kind, lpad(to_hex(n), 32, '0')::uuid, step, kind, 1585, 'USD', '{}', now()
    FROM generate_series(1, :payments / 2) n, (VALUES ('authorize', 1), ('capture', 2)) steps (kind, step)
    """,
)
# What 0.1 writes for one payment, each in a transaction of its own.
ACCEPT = """
    INSERT INTO payments (id, user_id, created_by, order_id, payment_method_id, amount, currency, metadata, method,
        status, sequence, attempt, gateway_tries, due_at, due_reason, created_at, updated_at)
    VALUES (:id, '1', 'user:1', :order_id, :id, 1585, 'USD', '{}', '{"type": "CREDIT_CARD"}',
        'PENDING', 1, 0, 0, now(), 'claimed', now(), now())
    ON CONFLICT DO NOTHING
"""
CLAIM = """
    UPDATE payments SET status = 'PROCESSING', sequence = sequence + 1, attempt = attempt + 1, updated_at = now()
    WHERE id = :id
"""
CHARGE = """
    INSERT INTO gateway_ledger (key, payment_id, step, kind, amount, currency, answer, created_at)
    VALUES (:order_id, :id, 1, 'sale', 1585, 'USD', '{}', now()) ON CONFLICT DO NOTHING
"""
RECORD = """
    UPDATE payments SET status = 'COMPLETED', sequence = sequence + 1, due_at = NULL, updated_at = now()
    WHERE id = :id
"""


@dataclass
class Load:
    """Writers that go on until it is over, and how long each of their writes took (seconds)."""

    database: Database
    waits_s: list[float] = field(default_factory=list)
    is_over: bool = False

    async def pay(self) -> None:
        while not self.is_over:
            payment = {"id": new_id()}
            for statement in (ACCEPT, CLAIM, CHARGE, RECORD):
                began_at = monotonic()
                async with self.database.transaction() as connection:
                    names = payment | ({"order_id": str(payment["id"])} if ":order_id" in statement else {})
                    await connection.execute(text(statement), names)
                self.waits_s.append(monotonic() - began_at)
                await asyncio.sleep(PAUSE_S)

    async def read_long(self, statement: str, pause_s: float) -> None:
        while not self.is_over:
            async with self.database.transaction() as connection:
                await connection.execute(text(statement))
                await asyncio.sleep(READ_S)
            await asyncio.sleep(pause_s)


@asynccontextmanager
async def loaded(settings: Settings) -> AsyncIterator[Load]:
    """Write and read for the length of the block."""
    async with opened(settings) as database, asyncio.TaskGroup() as group:
        load = Load(database)
        for _ in range(WRITERS):
            group.create_task(load.pay())
        for statement, pause_s in READERS.items():
            group.create_task(load.read_long(statement, pause_s))
        yield load
        load.is_over = True


async def fill(settings: Settings) -> None:
    async with opened(settings.model_copy(update={"database_timeout_s": 300})) as database:
        for statement in FILL:
            async with database.transaction() as connection:
                await connection.execute(text(statement), {"payments": PAYMENTS})


@on_postgresql
async def test_no_write_waits_for_a_second_while_a_million_payments_are_migrated(
    make_settings: MakeSettings, empty_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_settings(database_url=empty_database_url, database_pool_size=WRITERS + len(READERS))
    await migrate(settings)
    await downgrade(settings, OF_0_1)
    await fill(settings)
    async with loaded(settings) as load:
        await asyncio.sleep(2)
        began_at, before = monotonic(), len(load.waits_s)
        done = await asyncio.to_thread(ran_migrate, settings, timeout_s=300)
        took_s = monotonic() - began_at
        waits_s = load.waits_s[before:]
    assert done.returncode == 0, done.stdout + done.stderr
    assert head() in done.stdout
    with capsys.disabled():
        print(  # noqa: T201 - the figures that the documentation has
            f"\n{PAYMENTS} payments migrated in {took_s:.1f} s beside {len(waits_s) / took_s:.0f} writes/s: "
            f"median {median(waits_s) * 1000:.1f} ms, p99 {quantiles(waits_s, n=100)[98] * 1000:.0f} ms, "
            f"longest {max(waits_s) * 1000:.0f} ms\n{done.stdout}"
        )
    assert len(waits_s) / took_s > 50
    assert max(waits_s) <= WAIT_MAX_S
    began_at = monotonic()
    await downgrade(settings, OF_0_1)
    down_s = monotonic() - began_at
    assert await migrate(settings) == head()
    with capsys.disabled():
        print(f"down in {down_s:.1f} s, up again in {monotonic() - began_at - down_s:.1f} s")  # noqa: T201
