"""Fixtures every test may ask for: real servers, settings for them, and the same test on both databases.

A server that cannot start fails the tests that need it; nothing is skipped.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from sqlalchemy import delete

from shared.broker.client import Broker, open_broker
from shared.config.settings import Settings, load_settings
from shared.database.engine import Database, open_database
from shared.database.migrations import migrate
from shared.database.schema import metadata
from tests.support import pgbouncer
from tests.support.servers import PostgresServer, ValkeyServer, free_port

TEST_DATABASE = "payments_test"
TEST_SECRET = "secret-of-the-tests-with-more-than-32-bytes"

# The developer's shell does not decide what is tested; children inherit none of it.
for _name in list(os.environ):
    if _name.lower() in Settings.model_fields or _name.startswith("PG"):
        del os.environ[_name]

# A shell's `&` ignores it as well, and what we start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The same of `nohup`.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# Seconds; a busy machine of two cores needs minutes for what takes half a minute on a quiet one.
SLOW_TIMEOUT_S = 600
# Files whose subject is not the database: in `make test` they run on one of the two, and on the other one with the slow
# tests. What decides races and queries runs on both in any case.
ONE_DATABASE = {
    "sqlite": (
        "api_actions", "api_key_cache", "api_keys", "api_notification_limits", "api_notifications", "api_rules",
        "api_steering", "approval_forgeries", "approval_pages", "auth", "authorization", "callback_secrets",
        "capture_method", "capture_requests", "captured_orders", "captures_and_workers", "charge",
        "correlation_ids", "cors", "dashboard_actions", "dashboard_entry", "dashboard_figures",
        "dashboard_link", "dashboard_pages", "dashboard_place", "dashboard_system", "dashboard_timeline",
        "dashboard_unwell", "default_payment_methods", "delivery_receivers", "delivery_shutdown",
        "endpoint_deliveries", "endpoint_urls", "explain", "explain_bounds", "explain_endings", "explain_texts",
        "gateway", "gateway_refunds", "gateway_repeats", "gateway_undecided", "gone_clients", "health",
        "hostile", "kept_payment_methods", "late_approvals", "long_poll", "new_payment_methods", "next_states",
        "one_payment_per_order", "openapi", "openapi_examples", "openapi_webhooks", "order_checks",
        "order_updates", "payers", "payment_cancels", "payment_intake", "payment_lists", "payment_views",
        "platform", "platform_paths", "polling", "prefer_wait", "random_requests", "raw_requests", "ready_made",
        "refund_repeats", "refund_requests", "refund_views", "refund_waits", "refunded_orders", "refusal_logs",
        "request_bodies", "resends", "response_models", "return_urls", "roles", "rule_trials",
        "rules_in_gateway", "same_payment_methods", "service_timer", "simulate_clock", "simulate_command",
        "state_refusals", "stats", "steering", "unknown_paths", "unpayable_orders", "upstream_readiness",
        "verify_runs", "voids", "waiters", "webhook_endpoints", "worker_names", "wrong_rules",
    ),
    "postgresql": (
        "accept_queue", "actions", "advance", "crash_points", "delivery_changes", "delivery_shares",
        "group_commit", "group_commit_failures", "group_commit_properties", "late_settlements",
        "later_crash_points", "left_behind", "lost_commits", "model", "money_model", "order_conflict_records",
        "order_conflicts", "order_postponements", "pipeline", "pipeline_outages", "rule_book", "shared_work",
        "verify", "verify_breaches", "verify_money_breaches", "verify_refund_breaches", "worker_ends",
    ),
}  # fmt: skip
RUNS_ON = {f"test_{name}": backend for backend, names in ONE_DATABASE.items() for name in names}


class _Case(NamedTuple):
    """A test with its parameters; `backend` is its database, if it has one."""

    test: str
    parameters: str
    backend: str | None


def _case_of(item: pytest.Item) -> _Case:
    callspec = getattr(item, "callspec", None)
    parameters = dict(callspec.params) if callspec else {}
    backend = parameters.pop("backend", None)
    return _Case(item.nodeid.partition("[")[0], repr(parameters), backend)


@pytest.hookimpl(tryfirst=True)  # Before tests are selected by their markers.
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as slow what runs on the other database, and give slow tests more time; leave out what has no PgBouncer."""
    cases = {item.nodeid: _case_of(item) for item in items}
    everywhere = set(cases.values())
    for item in items:
        case = cases[item.nodeid]
        backend = RUNS_ON.get(item.path.stem)
        # What is there for one database only is not there twice.
        if case.backend and backend and case.backend != backend and case._replace(backend=backend) in everywhere:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))
    if pgbouncer.PROGRAM is None:
        left_out = [item for item in items if item.get_closest_marker("pgbouncer")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in red what could not be tested on this machine."""
    if pgbouncer.PROGRAM is None:
        terminalreporter.section("NOT TESTED", red=True)
        terminalreporter.line(
            "There is no PgBouncer, so nothing behind a pooler was tested. Install it: apt install pgbouncer"
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The session's PostgreSQL. A test that kills or pauses one starts its own `PostgresServer`."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def _postgres_url(postgres: PostgresServer) -> str:
    """A database of the session with the tables in the schema `payments`."""
    url = postgres.create_database(TEST_DATABASE)
    _create_tables(url)
    return url


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the tables; every test gets a copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _create_tables(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def _valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def valkey(_valkey: ValkeyServer) -> ValkeyServer:
    """The session's Valkey, empty. A test that kills or pauses one starts its own `ValkeyServer`."""
    _valkey.start()
    with redis.Redis.from_url(_valkey.url) as client:
        client.flushall()
    return _valkey


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    """The URL of an empty Valkey."""
    return valkey.url


@pytest.fixture
async def broker(redis_url: str) -> AsyncIterator[Broker]:
    """The broker on the empty Valkey."""
    broker = open_broker(redis_url)
    yield broker
    await broker.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Both databases, one after the other: a test that uses `settings` or `database` runs on each."""
    backend: str = request.param
    return backend


@pytest.fixture
def database_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that has the tables and no rows."""
    if backend == "sqlite":
        path = tmp_path / "payments.db"
        shutil.copy(request.getfixturevalue("_sqlite_template"), path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("_postgres_url")
    postgres: PostgresServer = request.getfixturevalue("postgres")
    postgres.execute(EMPTY_ALL_TABLES, database=TEST_DATABASE)
    return url


@pytest.fixture
def empty_database_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any table, for migrations."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    postgres.drop_database("empty")
    yield postgres.create_database("empty")
    postgres.drop_database("empty")


@pytest.fixture
def make_settings(database_url: str, redis_url: str) -> Callable[..., Settings]:
    """`make_settings(port=1)`: settings for this test's database and Valkey, some of them other than in `settings`."""
    return partial(_make_settings, database_url=database_url, redis_url=redis_url)


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    """Settings for this test's database and Valkey, with a gateway that answers within 5 ms."""
    return make_settings()


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """The test's database, opened in the test's loop."""
    database = open_database(settings)
    yield database
    await database.dispose()


def _make_settings(**overrides: object) -> Settings:
    """Settings of a test: waits as short as they may be, nothing from the environment."""
    defaults: dict[str, object] = {
        "database_schema": "payments",
        "port": free_port(),
        "jwt_secret_key": TEST_SECRET,
        "payment_processing_delay_min": 0,
        "payment_processing_delay_max": 5,
        "poll_delay_ms": 5,
        "relay_interval_s": 0.05,
        "gateway_backoff_s": 0.05,
        "webhook_retry_schedule": (0.05, 0.05),
        "simulator_seed": "tests",
    }
    return load_settings(**{**defaults, **overrides})


# A task that a test left behind must not hold up the next one: its connection is ended first.
EMPTY_ALL_TABLES = "\n".join(
    [
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
        "AND datname = current_database() AND backend_type = 'client backend';",
        "SET lock_timeout = '5s'; SET search_path = payments;",
        *(f"{delete(table)};" for table in reversed(metadata.sorted_tables)),
    ]
)


def _create_tables(url: str) -> None:
    """As `payments migrate` does, but in a thread with a loop of its own: a test's loop is not for the session."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, migrate(_make_settings(database_url=url))).result()
