"""PostgreSQL, two Valkeys, two APIs and three workers; what ends is started again, as an orchestrator would."""

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from sqlalchemy.engine import make_url

from api.paths import NOTIFICATIONS
from shared.config.settings import Settings, load_settings
from shared.database.migrations import migrate
from tests.chaos.clocks import WorkerApart
from tests.chaos.upstreams import FlakyOrders, FlakyReceiver
from tests.support.pgbouncer import PROGRAM, PgBouncer
from tests.support.processes import READY_EVENTS, PaymentsProcess, processes
from tests.support.redis_proxy import RedisProxy, redis_proxy
from tests.support.roles import PASSWORD, ROLE, ask_for_password, give_role
from tests.support.servers import PostgresServer, ValkeyServer, free_port
from tests.support.standins import running
from tests.support.swallowing import SwallowingProxy

SECRET = "secret-of-the-chaos-with-more-than-32-bytes"
APIS = 2
CLOCKS_APART_S = (0.0, 4.0, -4.0)  # one worker each
# Few enough to be taken up: five processes have four each.
CONNECTIONS_MAX = 60
POOLED_MAX = 6
OPERATOR_TIMEOUT_S = 10
WATCH_S = 0.1
TRIMMED_TO = 200  # requests that a stand-in remembers


@dataclass(slots=True)
class Installation:
    """The service and its surroundings.

    A fault holds the lock of the part that it breaks, and the watch leaves that part alone.
    """

    settings: Settings
    postgres: PostgresServer
    database_proxy: SwallowingProxy
    # None where this machine has no PgBouncer.
    pooler: PgBouncer | None
    valkey: ValkeyServer
    # Takes the place of `valkey` in a failover, and the other way round.
    spare: ValkeyServer
    # The service's only way to Redis.
    redis_proxy: RedisProxy
    apis: list[PaymentsProcess]
    workers: list[PaymentsProcess]
    orders: FlakyOrders
    receiver: FlakyReceiver
    findings: list[str] = field(default_factory=list)
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    def lock(self, part: str) -> asyncio.Lock:
        """The right to break `part`."""
        return self.locks.setdefault(part, asyncio.Lock())

    @property
    def urls(self) -> list[str]:
        """Of the APIs."""
        return [f"http://127.0.0.1:{api.settings.port}/api/v1" for api in self.apis]

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the superuser, beside the service's."""
        connection = await asyncpg.connect(
            self.settings.database_url.replace("+asyncpg", ""),
            timeout=OPERATOR_TIMEOUT_S,
            command_timeout=OPERATOR_TIMEOUT_S,
            server_settings={"application_name": "chaos", "synchronous_commit": "off"},
        )
        try:
            yield connection
        finally:
            await connection.close(timeout=OPERATOR_TIMEOUT_S)

    async def watch(self) -> None:
        """Start again what has ended, and note what did so by itself."""
        while True:
            await asyncio.sleep(WATCH_S)
            del self.orders.requests[:-TRIMMED_TO]
            for process in [*self.apis, *self.workers]:
                if process.is_running or self.lock(process.folder.name).locked():
                    continue
                if not _was_refused_at_start(process):
                    last = process.errors[-1500:] or process.output[-1500:]
                    self.findings.append(f"{process.folder.name} ended by itself with {process.exit_code}: {last}")
                process.start()


def _was_refused_at_start(process: PaymentsProcess) -> bool:
    """Whether it never began to work, because the database refused it: a start says so and ends."""
    begun = READY_EVENTS[process.command] & {line["event"] for line in process.lines()}
    return not begun and "cannot be used" in process.errors


@asynccontextmanager
async def installed() -> AsyncIterator[Installation]:
    """Yield an installation in which everything is at work; at the end nothing of it is left."""
    async with AsyncExitStack() as around:
        folder = Path(around.enter_context(tempfile.TemporaryDirectory(prefix="payments-chaos-")))
        options = (f"max_connections={CONNECTIONS_MAX}", "synchronous_commit=on")
        postgres = around.enter_context(PostgresServer(options=options))
        valkey, spare = [around.enter_context(ValkeyServer(folder / name)) for name in ("valkey", "spare")]
        redis = await around.enter_async_context(redis_proxy(valkey.url))
        orders = await around.enter_async_context(running(FlakyOrders(secret=SECRET)))
        receiver = await around.enter_async_context(FlakyReceiver.listening())
        settings = _settings(postgres.create_database("chaos"), redis.url, orders.url)
        await migrate(settings)
        role_url = give_role(postgres, "chaos")
        ask_for_password(postgres)
        database_proxy = around.enter_context(SwallowingProxy(postgres.port))
        pooler = around.enter_context(_pooler(postgres)) if PROGRAM is not None else None
        # Each process takes the next way to the database: straight, through the proxy, through the pooler.
        ports = itertools.cycle([postgres.port, database_proxy.port, *([pooler.port] if pooler else [])])
        api_ports = [free_port() for _ in range(APIS)]
        # A notification that finds this API dead is lost.
        notified = f"http://127.0.0.1:{api_ports[0]}/api/v1{NOTIFICATIONS}"
        apis = [
            PaymentsProcess("api", folder / f"api-{n}", _of_role(settings, role_url, next(ports), port=port))
            for n, port in enumerate(api_ports)
        ]
        workers = [
            PaymentsProcess(
                "worker",
                folder / f"worker-{n}",
                _of_role(settings, role_url, next(ports), gateway_notification_url=notified),
                program=WorkerApart(by_s),
            )
            for n, by_s in enumerate(CLOCKS_APART_S)
        ]
        around.enter_context(processes(*apis, *workers))
        for process in (*apis, *workers):
            await process.ready()
        yield Installation(
            settings, postgres, database_proxy, pooler, valkey, spare, redis, apis, workers, orders, receiver
        )


def _pooler(postgres: PostgresServer) -> PgBouncer:
    """A pooler whose few connections are shared between transactions, and that looks for a lost server every second."""
    return PgBouncer(
        postgres.port, "transaction", users={ROLE: PASSWORD}, default_pool_size=POOLED_MAX, server_login_retry=1
    )


def _of_role(settings: Settings, url: str, database_port: int, **changes: object) -> Settings:
    """The settings of a process: it has its rights only, and its way to the database."""
    way = make_url(url).set(port=database_port).render_as_string(hide_password=False)
    return load_settings(**{**settings.model_dump(include=settings.model_fields_set), "database_url": way, **changes})


def _settings(database_url: str, redis_url: str, orders_url: str) -> Settings:
    """Waits as short as the settings allow, so that a lease ends and a retry comes within the run."""
    return load_settings(
        port=free_port(),
        database_url=database_url,
        database_pool_size=4,
        database_timeout_s=2,
        redis_url=redis_url,
        jwt_secret_key=SECRET,
        order_service_url=orders_url,
        order_timeout_s=1,
        order_not_found_after_s=1,
        payment_processing_delay_min=100,
        payment_processing_delay_max=400,
        payment_success_rate=0.9,
        # What nobody captures expires within the run.
        authorization_valid_s_card=20,
        authorization_valid_s_paypal=20,
        action_expires_s=15,
        order_on_refund="cancel",
        simulator_seed="chaos",
        worker_concurrency=50,
        lease_s=14,
        # What is broken here is broken more often than a payment breaks its workers.
        max_claims=20,
        webhook_timeout=2,
        webhook_lease_s=12.5,
        webhook_retry_schedule=(0.5, 1, 2, *[3] * 60),
    )
