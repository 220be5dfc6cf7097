"""What is done to PostgreSQL and the ways to it.

It is restarted, its connections are cut, swallowed or taken up, its tables are locked, its commits are held up, and it
refuses the password. The pooler before it is restarted.
"""

import asyncio
import contextlib

import asyncpg

from tests.chaos.installation import CONNECTIONS_MAX, Installation
from tests.chaos.plan import Planned
from tests.support.roles import PASSWORD, ROLE

LOCKED_WITHIN_S = 40
LOCKED = ("payments", "gateway_ledger", "deliveries", "idempotency_keys")
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'payments'"
# For so long the connections are taken that the service was made to let go.
TAKES_UP_S = 1.0
LOCK_TIMEOUT_MS = 200
NO_STANDBY = "ALTER SYSTEM SET synchronous_standby_names = 'nobody'"
ANY_STANDBY = "ALTER SYSTEM RESET synchronous_standby_names"


async def restart_postgres(installation: Installation, planned: Planned) -> None:
    """SIGKILL, and started again with its data after a while: it recovers."""
    async with installation.lock("postgres"):
        installation.postgres.kill()
        await asyncio.sleep(planned.lasts_s)
        installation.postgres.start()


async def cut_connections(installation: Installation, planned: Planned) -> None:
    """End the service's connections, whatever they do: all, or every second one."""
    async with installation.lock("postgres"), installation.operator() as operator:
        await operator.execute(f"{CUT} AND pid % 2 <= {planned.victim % 2}")


async def slow_commits(installation: Installation, planned: Planned) -> None:
    """Commits wait for a standby that does not come: written, and not answered; then all of them go through."""
    async with installation.lock("postgres"), installation.operator() as operator:
        try:
            await operator.execute(NO_STANDBY)
            await operator.execute("SELECT pg_reload_conf()")
            await asyncio.sleep(planned.lasts_s)
        finally:
            await operator.execute(ANY_STANDBY)
            await operator.execute("SELECT pg_reload_conf()")


async def lock_table(installation: Installation, planned: Planned) -> None:
    """No process writes into one table, as during a clumsy migration."""
    table = LOCKED[planned.victim % len(LOCKED)]
    async with installation.lock("postgres"), installation.operator() as operator, operator.transaction():
        await operator.execute(f"SET LOCAL search_path = {installation.settings.database_schema}")
        # A transaction whose connection was swallowed holds its locks until the server ends it. Then nobody else has
        # written either, which is what this fault is for; a lock that nobody gives back shows in the judgement.
        with contextlib.suppress(TimeoutError):
            await operator.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE", timeout=LOCKED_WITHIN_S)
            await asyncio.sleep(planned.lasts_s)


async def fill_connections(installation: Installation, planned: Planned) -> None:
    """Take up every connection that the server has, also those that the service is made to let go."""
    async with installation.lock("postgres"), installation.operator() as operator, contextlib.AsyncExitStack() as taken:
        until = asyncio.get_running_loop().time() + TAKES_UP_S
        while asyncio.get_running_loop().time() < until:
            await operator.execute(CUT)
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                for _ in range(CONNECTIONS_MAX):
                    await taken.enter_async_context(installation.operator())
        await asyncio.sleep(planned.lasts_s)


async def rotate_password(installation: Installation, planned: Planned) -> None:
    """The password of the service is another one, and no connection has stayed; then it is the old one again."""
    async with installation.lock("postgres"), installation.operator() as operator:
        try:
            await operator.execute(f"ALTER ROLE {ROLE} PASSWORD 'rotated'")
            await operator.execute(CUT)
            await asyncio.sleep(planned.lasts_s)
        finally:
            await operator.execute(f"ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'")


async def time_out_locks(installation: Installation, planned: Planned) -> None:
    """The role waits for a lock only shortly, and one table is locked for everything."""
    table = LOCKED[planned.victim % len(LOCKED)]
    async with installation.lock("postgres"), installation.operator() as operator:
        try:
            await operator.execute(f"ALTER ROLE {ROLE} SET lock_timeout = '{LOCK_TIMEOUT_MS}ms'")
            await operator.execute(CUT)
            async with operator.transaction():
                await operator.execute(f"LOCK TABLE {installation.settings.database_schema}.{table}")
                await asyncio.sleep(planned.lasts_s)
        finally:
            await operator.execute(f"ALTER ROLE {ROLE} RESET lock_timeout")
            await operator.execute(CUT)


async def swallow_connections(installation: Installation, _planned: Planned) -> None:
    """Every connection through the proxy stays open, and nothing that is sent on it arrives any more."""
    installation.database_proxy.swallow()


async def restart_pooler(installation: Installation, planned: Planned) -> None:
    """SIGKILL, and started again after a while."""
    pooler = installation.pooler
    assert pooler is not None
    async with installation.lock("pooler"):
        pooler.kill()
        await asyncio.sleep(planned.lasts_s)
        await asyncio.to_thread(pooler.restart)
