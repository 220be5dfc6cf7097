"""Workers that are killed in the middle of a verification: it is said to have failed, and the next one is done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from shared.broker.verify_runs import ALIVE_S
from shared.config.settings import Settings
from shared.database.engine import Database
from tests.support.api_client import opened_with
from tests.support.processes import READY_S, PaymentsProcess, processes
from tests.support.verified import build
from tests.support.waiting import eventually


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_the_run_of_a_killed_worker_fails_and_another_worker_does_the_next(
    make_settings: Callable[..., Settings], database: Database, tmp_path: Path
) -> None:
    settings = make_settings()
    await build(database, settings)
    first, second = [PaymentsProcess("worker", tmp_path / name, settings) for name in ("first", "second")]
    async with opened_with(settings) as running_api:
        admin = running_api.admin()
        with processes(first):
            await first.ready()
            # The payments are counted, and the first check that reads the ledger waits.
            async with database.transaction() as connection:
                await connection.execute(text("LOCK TABLE gateway_ledger IN ACCESS EXCLUSIVE MODE"))
                asked = (await admin.post("/verify/run")).json()
                await eventually(lambda: is_counted(admin), READY_S)
                first.kill()
                died = (await admin.get("/verify/run")).json()
                assert (died["id"], died["status"]) == (asked["id"], "running")
                # Nobody takes it from the dead, and there is one at a time as long as it may be alive.
                assert (await admin.post("/verify/run")).json()["id"] == asked["id"]
            with processes(second):
                await second.ready()
                failed = await eventually(lambda: status_of(admin, "failed"), ALIVE_S + READY_S)
                assert failed["id"] == asked["id"]
                assert failed["failure"] == f"The worker {died['worker']} is gone, or Redis did not answer it."
                assert not second.lines("verify.started")
                await admin.post("/verify/run")
                done = await eventually(lambda: status_of(admin, "done"), READY_S)
        assert done["id"] != asked["id"]
        assert done["worker"] != died["worker"]
        assert (await admin.get("/verify/last")).json()["is_sound"]


async def status_of(admin: httpx.AsyncClient, status: str) -> dict[str, Any] | None:
    run: dict[str, Any] = (await admin.get("/verify/run")).json()
    return run if run["status"] == status else None


async def is_counted(admin: httpx.AsyncClient) -> bool:
    run = await status_of(admin, "running")
    return run is not None and run["total"] is not None
