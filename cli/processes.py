"""Runs the API, the worker or both as this process: settings, logs, signals and the order of start and stop."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
import uvloop

from api.dashboard.sessions import LINK_S, issue_link
from api.main import listen, serve
from api.paths import DASHBOARD, NOTIFICATIONS, PREFIX
from cli.errors import refusal_names_the_setting, require_database_file
from cli.local.valkey import VALKEY_FOLDER, EmbeddedValkey
from shared import metrics
from shared.config.misspelt import warn_of_misspelt
from shared.config.settings import Settings, load_settings
from shared.database.engine import open_database
from shared.database.migrations import known_revisions, migrate, require_current
from shared.errors import BrokerUnavailable, ConfigurationError, DatabaseUnavailable, StatementFailed
from shared.log_limits import report_left_out
from shared.logs import configure_logs
from shared.open_files import allow_open_files
from shared.runtime import Runtime, open_runtime
from shared.simulation.clock import require_speed, set_speed
from shared.version import VERSION
from worker.main import WorkerProcess

log = structlog.get_logger(__name__)

# Seconds for which a start waits for a database that does not answer yet.
DATABASE_WAIT_S = 60
DATABASE_PAUSE_S = 1.0
# Requests and payments leave few reference cycles. With the default thresholds, the search for them took 5 % of a
# worker's time.
GARBAGE_THRESHOLDS = (20_000, 20, 100)
# Open files that a service wants. It is usually started with a limit of 1,024, which it may raise.
OPEN_FILES = 65_536
# Threads that resolve the host names of receivers. A few name servers that hang do not delay other deliveries.
NAME_LOOKUPS_MAX = 32

type Announce = Callable[[Settings, str | None], None]
"""Says to people that the service is there. The text is a link that signs in to the dashboard, if there is one."""
type Part = Callable[[Runtime, asyncio.Event], Awaitable[None]]


def run_api() -> None:
    """Run `payments api` until SIGINT, SIGTERM or SIGHUP."""
    settings = _prepared(load_settings())
    require_database_file(settings.sqlalchemy_url)
    listener = listen(settings.host, settings.port)
    _run(_with_runtime(settings, lambda runtime, stop: serve(runtime, listener, stop)))


def run_worker() -> None:
    """Run `payments worker` until SIGINT, SIGTERM or SIGHUP."""
    settings = _prepared(load_settings())
    require_database_file(settings.sqlalchemy_url)
    _run(_with_runtime(settings, lambda runtime, stop: WorkerProcess(runtime).run(stop)))


def run_migrate() -> tuple[str, bool]:
    """Run `payments migrate`. Return the revision that the schema has now, and whether this code knows it."""
    settings = _prepared(_for_people())
    revision = asyncio.run(_use_database(settings, _migrate(settings)))
    return revision, revision in known_revisions()


def run_up(announce: Announce) -> None:
    """Run `payments up`: the API and a worker in one process, and a Valkey beside it unless REDIS_URL is set.

    `announce` is called when the database is ready.
    """
    settings = _notifying_itself(_prepared(_for_people()))
    listener = listen(settings.host, settings.port)
    if settings.redis_url is not None:
        _run(_up(settings, listener, announce, None))
        return
    with EmbeddedValkey(VALKEY_FOLDER) as valkey:
        settings = settings.model_copy(update={"redis_url": valkey.url})
        _run(_up(settings, listener, announce, valkey))


async def _up(settings: Settings, listener: Any, announce: Announce, valkey: EmbeddedValkey | None) -> None:
    async def run_both(runtime: Runtime, stop: asyncio.Event) -> None:
        """Run both. The worker stops after the API, so that payments accepted last can still be processed."""
        announce(settings, await _sign_in_link(runtime))
        api_stopped = asyncio.Event()
        async with asyncio.TaskGroup() as parts:
            supervision = parts.create_task(valkey.supervise()) if valkey else None
            worker_task = parts.create_task(WorkerProcess(runtime).run(api_stopped))
            try:
                await serve(runtime, listener, stop)
            finally:
                api_stopped.set()
            await worker_task
            if supervision is not None:
                supervision.cancel()

    await _with_runtime(settings, run_both, prepare=lambda: _migrate(settings))


async def _migrate(settings: Settings) -> str:
    """Bring the database to the schema of this code, and write the speed of service time. Return the revision."""
    revision = await migrate(settings)
    database = open_database(settings)
    try:
        await set_speed(database, settings.simulation_speed)
    finally:
        await database.dispose()
    return revision


async def _require_current(runtime: Runtime) -> None:
    """Check that the database has the current schema, and service time the speed of this process."""
    await require_current(runtime.database)
    await require_speed(runtime.database, runtime.settings.simulation_speed)


async def _sign_in_link(runtime: Runtime) -> str | None:
    """Return a link that signs in to the dashboard; None unless a person on this machine reads it.

    It is a secret, and both streams of a process that runs in the background are its log.
    """
    settings = runtime.settings
    is_read_by_a_person = sys.stdout.isatty() and sys.stderr.isatty()
    if not (settings.takes_sign_in_links and is_read_by_a_person):
        return None
    try:
        link = await issue_link(runtime.broker, runtime.keyring)
    except BrokerUnavailable:
        # Safe: a token signs in as well.
        return None
    return f"{settings.link_base}{DASHBOARD}/sign-in?link={link} (works once, within {LINK_S // 60} minutes)"


async def _with_runtime(
    settings: Settings, part: Part, *, prepare: Callable[[], Coroutine[Any, Any, Any]] | None = None
) -> None:
    """Run `prepare`, check that the database fits this process, and run `part` until SIGINT, SIGTERM or SIGHUP."""
    stop = asyncio.Event()
    for number in _stop_signals():
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if prepare is not None and not await _wait_for_database(settings, prepare, stop):
        return
    runtime = open_runtime(settings)
    left_out = asyncio.create_task(report_left_out())
    try:
        await runtime.broker.require_supported()
        if await _wait_for_database(settings, lambda: _require_current(runtime), stop):
            await part(runtime, stop)
    finally:
        left_out.cancel()
        await runtime.close()


def _stop_signals() -> Iterator[signal.Signals]:
    """Return the signals that stop and drain this process: SIGHUP is one, unless it is ignored, as with nohup."""
    yield from (signal.SIGINT, signal.SIGTERM)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        yield signal.SIGHUP


async def _wait_for_database(
    settings: Settings, action: Callable[[], Coroutine[Any, Any, Any]], stop: asyncio.Event
) -> bool:
    """Run `action`, and again every second while the database does not answer. Return False if `stop` comes first.

    Raises DatabaseUnavailable after DATABASE_WAIT_S seconds.
    """
    deadline = asyncio.get_running_loop().time() + DATABASE_WAIT_S
    while not stop.is_set():
        try:
            return await _unless_stopped(_use_database(settings, action()), stop)
        except StatementFailed:
            # Waiting does not help.
            raise
        except DatabaseUnavailable as error:
            if asyncio.get_running_loop().time() > deadline:
                raise
            log.warning("start.waits_for_database", database=settings.database_name, error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), DATABASE_PAUSE_S)
    return False


async def _unless_stopped(action: Coroutine[Any, Any, Any], stop: asyncio.Event) -> bool:
    """Await `action` and return True. Cancel it and return False if `stop` comes first: a migration may wait long."""
    doing, stopping = asyncio.ensure_future(action), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((doing, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            return False
        await doing
        return True
    finally:
        for task in (doing, stopping):
            task.cancel()
        await asyncio.gather(doing, stopping, return_exceptions=True)


async def _use_database[T](settings: Settings, action: Coroutine[Any, Any, T]) -> T:
    """Await `action`. Raises ConfigurationError if the database refuses."""
    with refusal_names_the_setting(settings):
        return await action


def _for_people() -> Settings:
    """Return the settings of a command that people start: on a terminal it logs for them, unless LOG_FORMAT is set."""
    settings = load_settings()
    if "log_format" not in settings.model_fields_set and sys.stdout.isatty():
        return load_settings(log_format="console")
    return settings


def _notifying_itself(settings: Settings) -> Settings:
    """Return settings with which the simulated gateway notifies this process' own API, unless it notifies another."""
    if settings.gateway_notification_url is not None:
        return settings
    url = f"{settings.local_url}{PREFIX}{NOTIFICATIONS}"
    return settings.model_copy(update={"gateway_notification_url": url})


def _prepared(settings: Settings) -> Settings:
    configure_logs(level=settings.log_level, form=settings.log_format)
    metrics.build.labels(VERSION).set(1)
    settings.warn()
    warn_of_misspelt(os.environ, Settings.model_fields)
    return settings


def _run(main: Coroutine[Any, Any, None]) -> None:
    allow_open_files(OPEN_FILES)
    gc.collect()
    # The objects of the program itself are never garbage, so no collection needs to look at them.
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_default_executor(ThreadPoolExecutor(NAME_LOOKUPS_MAX))
        try:
            runner.run(main)
        except ExceptionGroup as group:
            # A part of the program that could not start raises ConfigurationError inside the group.
            configuration_errors = group.subgroup(ConfigurationError)
            if configuration_errors is None:
                raise
            raise _first_of(configuration_errors) from None


def _first_of(error: Exception) -> Exception:
    return _first_of(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error
