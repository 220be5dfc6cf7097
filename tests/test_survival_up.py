"""`payments up` that is killed and stopped: it goes on where it was, and leaves no process behind."""

from pathlib import Path

import pytest

from shared.database.engine import Database
from tests.support.processes import PaymentsProcess, Shop, processes
from tests.support.survival import (
    MakeSettings,
    all_reasons,
    charged_but_not_recorded,
    everything_settles,
    is_processing,
    on_sqlite,
    statuses,
)
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.survival_fixtures"]


@pytest.mark.slow
@on_sqlite
async def test_up_goes_on_where_it_was_when_it_is_killed_and_started_again(
    slow_gateway: MakeSettings, database: Database, tmp_path: Path
) -> None:
    settings = slow_gateway(redis_url=None)
    up = PaymentsProcess("up", tmp_path / "up", settings)
    with processes(up):
        await up.ready()
        async with Shop(settings) as shop:
            await shop.add_card()
            for _ in range(25):
                await shop.accepted()
            await eventually(lambda: charged_but_not_recorded(database))
            family = up.children()
            up.kill()
            await eventually(lambda: not any(process.is_running() for process in family))
            assert {"PENDING", "PROCESSING"} <= set(await statuses(database))
            up.start()
            await up.ready()
            await shop.accepted()
            await everything_settles(database, 26)
        assert "lease_expired" in await all_reasons(database)


@on_sqlite
@pytest.mark.parametrize("how", [pytest.param("Ctrl-C", marks=pytest.mark.slow), "SIGTERM"])
async def test_up_drains_and_leaves_no_process_behind(
    slow_gateway: MakeSettings, database: Database, tmp_path: Path, how: str
) -> None:
    settings = slow_gateway(redis_url=None, payment_success_rate=1)
    up = PaymentsProcess("up", tmp_path / "up", settings)
    with processes(up):
        await up.ready()
        async with Shop(settings) as shop:
            await shop.add_card()
            for _ in range(15):
                await shop.accepted()
        await eventually(lambda: is_processing(database))
        family = up.children()
        assert [process.name() for process in family] == ["valkey-server"]
        if how == "Ctrl-C":
            up.interrupt()
        else:
            up.terminate()
        assert await up.ended() == 0
        assert not any(process.is_running() for process in family)
        assert "Traceback" not in up.errors + up.output
        assert "PROCESSING" not in await statuses(database)
        up.start()
        await up.ready()
        await everything_settles(database, 15)
        assert "lease_expired" not in await all_reasons(database)
