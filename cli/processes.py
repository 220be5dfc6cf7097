"""Runs the API, the worker or both as this process: settings, logs, signals and the order of start and stop."""

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog
import uvloop
from sqlalchemy.exc import DBAPIError

from api.main import listen, serve
from cli.embedded_valkey import EmbeddedValkey
from shared.config import Settings, load_settings
from shared.errors import ConfigurationError, DatabaseUnavailable
from shared.logs import configure_logs
from shared.runtime import Runtime, open_runtime
from shared.schema import migrate, require_current
from worker.main import WorkerProcess

log = structlog.get_logger(__name__)

DATA_FOLDER = Path("var")
DATABASE_WAIT_S = 60  # how long a start waits for a database that is not there yet
DATABASE_PAUSE_S = 1.0
GARBAGE_THRESHOLDS = (20_000, 20, 100)  # requests and payments leave few cycles; looking for them took 5 % of a worker
NAME_LOOKUPS_MAX = 32  # receivers' names are resolved in threads: a few name servers that hang hold up nobody else

type Part = Callable[[Runtime, asyncio.Event], Awaitable[None]]


def run_api() -> None:
    """`payments api`."""
    settings = _prepared(load_settings())
    listener = listen(settings.host, settings.port)
    _run(_with_runtime(settings, lambda runtime, stop: serve(runtime, listener, stop)))


def run_worker() -> None:
    """`payments worker`."""
    settings = _prepared(load_settings())
    _run(_with_runtime(settings, lambda runtime, stop: WorkerProcess(runtime).run(stop)))


def run_migrate() -> str:
    """`payments migrate`; the revision that the database has now."""
    settings = _prepared(load_settings())
    return asyncio.run(_usable(settings, migrate(settings)))


def run_up(announce: Callable[[Settings], None]) -> None:
    """`payments up`: API and worker in one process, with a Valkey of its own unless REDIS_URL names another."""
    settings = load_settings()
    if "log_format" not in settings.model_fields_set and sys.stdout.isatty():
        settings = load_settings(log_format="console")
    settings = _prepared(settings)
    listener = listen(settings.host, settings.port)
    if settings.redis_url is not None:
        _run(_up(settings, listener, announce, None))
        return
    with EmbeddedValkey(DATA_FOLDER / "valkey") as valkey:
        settings = settings.model_copy(update={"redis_url": valkey.url})
        _run(_up(settings, listener, announce, valkey))


async def _up(
    settings: Settings, listener: Any, announce: Callable[[Settings], None], valkey: EmbeddedValkey | None
) -> None:
    async def both(runtime: Runtime, stop: asyncio.Event) -> None:
        """The worker stops after the API: what was accepted last still gets its message, and may get its answer."""
        announce(settings)
        api_stopped = asyncio.Event()
        async with asyncio.TaskGroup() as parts:
            supervision = parts.create_task(valkey.supervise()) if valkey else None
            working = parts.create_task(WorkerProcess(runtime).run(api_stopped))
            try:
                await serve(runtime, listener, stop)
            finally:
                api_stopped.set()
            await working
            if supervision is not None:
                supervision.cancel()

    await _with_runtime(settings, both, prepare=lambda: migrate(settings))


async def _with_runtime(
    settings: Settings, part: Part, *, prepare: Callable[[], Coroutine[Any, Any, Any]] | None = None
) -> None:
    """Run `part` with a runtime whose database has our schema, after `prepare`, until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if prepare is not None and not await _database_there(settings, prepare, stop):
        return
    runtime = open_runtime(settings)
    try:
        if await _database_there(settings, lambda: require_current(runtime.database), stop):
            await part(runtime, stop)
    finally:
        await runtime.close()


async def _database_there(
    settings: Settings, action: Callable[[], Coroutine[Any, Any, Any]], stop: asyncio.Event
) -> bool:
    """Do `action`, waiting a while for a database that is still starting; False if `stop` comes first."""
    deadline = asyncio.get_running_loop().time() + DATABASE_WAIT_S
    while not stop.is_set():
        try:
            await _usable(settings, action())
        except DatabaseUnavailable as error:
            if asyncio.get_running_loop().time() > deadline:
                raise
            log.warning("start.waits_for_database", url=str(settings.sqlalchemy_url), error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), DATABASE_PAUSE_S)
        else:
            return True
    return False


async def _usable[T](settings: Settings, action: Coroutine[Any, Any, T]) -> T:
    """Await `action`. Raises ConfigurationError where the database says no: a password, a name, a right, a file."""
    try:
        return await action
    except DBAPIError as error:
        raise ConfigurationError(f"DATABASE_URL: {settings.sqlalchemy_url} cannot be used: {error.orig}") from error


def _prepared(settings: Settings) -> Settings:
    configure_logs(level=settings.log_level, form=settings.log_format)
    settings.warn()
    return settings


def _run(main: Coroutine[Any, Any, None]) -> None:
    gc.collect()
    gc.freeze()  # the program itself is never garbage
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_default_executor(ThreadPoolExecutor(NAME_LOOKUPS_MAX))
        try:
            runner.run(main)
        except ExceptionGroup as group:
            wrong = group.subgroup(ConfigurationError)  # of a part that could not start
            if wrong is None:
                raise
            raise _first_of(wrong) from None


def _first_of(error: Exception) -> Exception:
    return _first_of(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error
