"""Workers that are killed between the use of a rule and the gateway's ledger: the rule fires as often as it may."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.simulation_tables import simulation_rule_uses
from shared.database.tables import payments
from shared.simulation.rules import Effect, Match
from tests.support.api_client import opened_with, order
from tests.support.crashing import LEASE_S, later
from tests.support.processes import PaymentsProcess, processes
from tests.support.rows import assert_sound
from tests.support.rules import rule, stored, used
from tests.support.waiting import eventually
from tests.support.workers import working

TIMES, PAYMENTS = 20, 60
RECOVERY_S = 60.0


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_whatever_is_killed_a_rule_fires_as_often_as_it_may_and_on_the_same_calls(
    make_settings: Callable[..., Settings], database: Database, tmp_path: Path
) -> None:
    settings = make_settings(
        payment_success_rate=1,
        payment_processing_delay_min=1500,
        payment_processing_delay_max=2500,
        lease_s=LEASE_S,
    )
    declines = rule(Match(currency="USD"), Effect(outcomes=("lost_card",)), times=TIMES)
    await stored(database, declines)
    async with opened_with(settings) as running_api:
        user = running_api.user()
        for number in range(PAYMENTS):
            await accepted(user, number)
    first = [PaymentsProcess("worker", tmp_path / f"first-{number}", settings) for number in range(2)]
    with processes(*first):
        await eventually(lambda: used_up(database, declines.id), RECOVERY_S)
        for worker in first:
            worker.kill()
    # None of these has reached the ledger, or hardly any.
    hit = await targets(database, declines.id)
    assert len(hit) == TIMES
    assert len(await ended_as(database, "FAILED")) < TIMES
    # After the leases of the dead.
    async with later(settings) as one, later(settings) as another, working(one), working(another):
        await eventually(lambda: all_ended(database), RECOVERY_S)
    assert await used(database, declines.id) == (TIMES, TIMES)
    assert await ended_as(database, "FAILED") == await targets(database, declines.id) == hit
    assert len(await ended_as(database, "COMPLETED")) == PAYMENTS - TIMES
    async with database.read() as connection:
        rows = await connection.execute(select(payments.c.failure_code, payments.c.outcome_rule).distinct())
        assert set(map(tuple, rows)) == {("lost_card", f"rule:{declines.id}"), (None, "card")}
    await assert_sound(database)


async def accepted(user: httpx.AsyncClient, number: int) -> None:
    answer = await user.post("/payments", json=order("pm_test_visa", order_id=f"kill-{number}"))
    assert answer.status_code == 202, answer.text


async def used_up(database: Database, rule_id: UUID) -> bool:
    return await used(database, rule_id) == (TIMES, TIMES)


async def targets(database: Database, rule_id: UUID) -> set[UUID]:
    uses = simulation_rule_uses.c
    async with database.read() as connection:
        return set((await connection.execute(select(uses.target_id).where(uses.rule_id == rule_id))).scalars())


async def ended_as(database: Database, status: str) -> set[UUID]:
    async with database.read() as connection:
        return set((await connection.execute(select(payments.c.id).where(payments.c.status == status))).scalars())


async def all_ended(database: Database) -> bool:
    return len(await ended_as(database, "FAILED")) + len(await ended_as(database, "COMPLETED")) == PAYMENTS
