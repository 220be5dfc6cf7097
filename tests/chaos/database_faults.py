"""What is done to PostgreSQL: restarted, its connections cut or taken up, its tables locked, its commits held up."""

import asyncio
import contextlib

import asyncpg

from tests.chaos.plan import Planned
from tests.chaos.stage import CONNECTIONS_MAX, Stage

LOCKED = ("payments", "gateway_ledger", "deliveries", "idempotency_keys")
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'payments'"
TAKES_UP_S = 1.0  # for taking what the service was made to let go
NOBODY = "ALTER SYSTEM SET synchronous_standby_names = 'nobody'"
ANYBODY = "ALTER SYSTEM RESET synchronous_standby_names"


async def restart_postgres(stage: Stage, planned: Planned) -> None:
    """SIGKILL, and started again with its data after a while: it recovers."""
    async with stage.lock("postgres"):
        stage.postgres.kill()
        await asyncio.sleep(planned.lasts_s)
        stage.postgres.start()


async def cut_connections(stage: Stage, planned: Planned) -> None:
    """End the service's connections, wherever they stand: all, or every second one."""
    async with stage.lock("postgres"), stage.operator() as operator:
        await operator.execute(f"{CUT} AND pid % 2 <= {planned.victim % 2}")


async def slow_commits(stage: Stage, planned: Planned) -> None:
    """Commits wait for a standby that does not come: written, and nobody is told; then all of them go through."""
    async with stage.lock("postgres"), stage.operator() as operator:
        try:
            await operator.execute(NOBODY)
            await operator.execute("SELECT pg_reload_conf()")
            await asyncio.sleep(planned.lasts_s)
        finally:
            await operator.execute(ANYBODY)
            await operator.execute("SELECT pg_reload_conf()")


async def lock_table(stage: Stage, planned: Planned) -> None:
    """Nobody writes into one table, as during a clumsy migration."""
    table = LOCKED[planned.victim % len(LOCKED)]
    async with stage.lock("postgres"), stage.operator() as operator, operator.transaction():
        await operator.execute(f"SET LOCAL search_path = {stage.settings.database_schema}")
        await operator.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
        await asyncio.sleep(planned.lasts_s)


async def fill_connections(stage: Stage, planned: Planned) -> None:
    """Take up every connection that the server has, also those that the service is made to let go."""
    async with stage.lock("postgres"), stage.operator() as operator, contextlib.AsyncExitStack() as taken:
        until = asyncio.get_running_loop().time() + TAKES_UP_S
        while asyncio.get_running_loop().time() < until:
            await operator.execute(CUT)
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                for _ in range(CONNECTIONS_MAX):
                    await taken.enter_async_context(stage.operator())
        await asyncio.sleep(planned.lasts_s)
