"""The targets of a load: `payments up`, an installation on PostgreSQL with a variable number of workers, or a URL.

An installation that is started here ends here, and must see none of the operator's settings.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from cli.load.client import Api, Unusable
from cli.load.plan import Refused
from cli.local.postgres import LocalPostgres
from cli.local.service import ServiceProcess
from cli.local.valkey import EmbeddedValkey
from cli.tokens import mint
from shared.config.settings import Settings
from shared.config.values import is_loopback

# Users that pay in an installation that this command started. A running deployment knows only the token of the option.
PAYERS = 20
# Seconds. An installation is ready after 2 s; the first start on a loaded machine takes much longer.
READY_MAX_S = 60
# Seconds for which a running deployment may be unready: it may have been started a moment ago.
TARGET_READY_MAX_S = 30
POLL_INTERVAL_S = 0.1
# Longer than the longest run with its drain.
TOKEN_HOURS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A service that can be loaded."""

    url: str
    # A short description of the target.
    words: str
    # The tokens of the users that pay.
    payers: Sequence[str]
    # The token that requests figures and lists of payments.
    watcher: str
    # Settings that lead to the database with the ledger; None for a running deployment, whose database stays unread.
    settings: Settings | None = None
    # A function that returns a sentence about a process of the target that has ended, or None.
    failure: Callable[[], str | None] = field(default=lambda: None)
    log_tail: Callable[[], Sequence[str]] = field(default=list)

    @property
    def was_started_here(self) -> bool:
        """This command started the target, and its data is removed with it."""
        return self.settings is not None


async def until_ready(target: Target, api: Api, print_line: Callable[[str], None]) -> None:
    """Return when the service can accept and process payments. Print a line if a running deployment is not ready.

    Raises Unusable if a process of the target ends, or if the target is not ready in time.
    """
    bound_s = READY_MAX_S if target.was_started_here else TARGET_READY_MAX_S
    deadline = time.monotonic() + bound_s
    has_printed = target.was_started_here
    while not await api.is_ready():
        if not has_printed:
            print_line(f"Waiting for {target.url} to be ready ...")
            has_printed = True
        if failure := target.failure():
            raise Unusable(failure)
        if time.monotonic() > deadline:
            raise Unusable(f"{target.url} is not ready after {bound_s} s. Look at its /health/ready.")
        await asyncio.sleep(POLL_INTERVAL_S)


def remote_target(url: str, token: str, *, is_mine: bool) -> Target:
    """Return the target for a running deployment.

    Raises Refused if the URL is no HTTP URL, if there is no token, or if the deployment is on another machine and the
    caller has not confirmed with `is_mine` that it may be loaded.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.scheme in {"http", "https"} and parts.port != 0 else None
    except ValueError:
        host = None
    if not host:
        raise Refused(f"--target {url}: this is no HTTP URL. Write one such as http://127.0.0.1:8009.")
    if not token:
        raise Refused("--target needs --token or PAYMENTS_TOKEN. Make one: payments token --user load --role admin")
    if not is_loopback(host) and not is_mine:
        raise Refused(
            f"--target {url}: {host} is another machine. A load can bring a service down, and its payments stay there. "
            "Add --target-is-mine if you may load it."
        )
    address = url.rstrip("/").removesuffix("/api/v1")
    return Target(url=address, words="a running deployment", payers=(token,), watcher=token)


@contextmanager
def embedded_target(folder: Path, *, slots: int | None) -> Iterator[Target]:
    """Start `payments up` with default settings: one process, SQLite and its own Valkey."""
    settings = {} if slots is None else {"WORKER_CONCURRENCY": str(slots)}
    with ServiceProcess(folder, "up", settings) as service:
        yield Target(
            url=service.url,
            words="the embedded default: one process, SQLite, its own Valkey",
            payers=_payers(),
            watcher=_token("load-watcher", "admin"),
            settings=_settings(f"sqlite+aiosqlite:///{folder / 'var' / 'payments.db'}"),
            failure=lambda: service.failure,
            log_tail=service.log_tail,
        )


class Workers:
    """The workers of an installation. Their number can change while it runs."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self._settings = settings
        self._running: list[ServiceProcess] = []
        self._started = 0

    async def scale(self, count: int, is_alive: Callable[[], Awaitable[int | None]]) -> None:
        """Start or stop workers until `count` run. Return when `is_alive` counts as many.

        Raises Unusable if a worker ends, or if the workers are not alive after READY_MAX_S seconds.
        """
        self._running = [part for part in self._running if part.exit_code is None]
        while len(self._running) < count:
            self._started += 1
            part = ServiceProcess(self._folder / f"worker-{self._started}", "worker", self._settings)
            self._running.append(part)
            part.start()
        surplus = self._running[count:]
        del self._running[count:]
        await asyncio.gather(*(asyncio.to_thread(part.stop) for part in surplus))
        deadline = time.monotonic() + READY_MAX_S
        while await is_alive() != count:
            if failure := self.failure:
                raise Unusable(failure)
            if time.monotonic() > deadline:
                raise Unusable(f"{count} workers are not alive after {READY_MAX_S} s.")
            await asyncio.sleep(POLL_INTERVAL_S)

    @property
    def failure(self) -> str | None:
        """A sentence about a worker that should run and has ended; None if all run."""
        return next((part.failure for part in self._running if part.failure), None)

    def stop(self) -> None:
        """Stop all workers at the same time. Each one finishes the payments that it has in the gateway."""
        for part in self._running:
            part.terminate()
        for part in self._running:
            part.stop()
        self._running.clear()


@contextmanager
def postgres_target(folder: Path, *, slots: int) -> Iterator[tuple[Target, Workers]]:
    """Start PostgreSQL with durable commits, Valkey and an API. The caller starts the workers.

    Raises CannotStart if PostgreSQL does not start, ConfigurationError if Valkey does not, and Unusable if the
    migration fails.
    """
    with contextlib.ExitStack() as running:
        postgres = running.enter_context(LocalPostgres(fsync=True))
        valkey = running.enter_context(EmbeddedValkey(folder / "valkey"))
        url = postgres.create_database("load")
        settings = {"DATABASE_URL": url, "REDIS_URL": valkey.url}
        _migrate(folder / "migrate", settings)
        api = running.enter_context(ServiceProcess(folder / "api", "api", settings))
        workers = Workers(folder, **settings, WORKER_CONCURRENCY=str(slots))
        running.callback(workers.stop)
        yield (
            Target(
                url=api.url,
                words=f"PostgreSQL, Valkey, one API; workers of {slots} slots",
                payers=_payers(),
                watcher=_token("load-watcher", "admin"),
                settings=_settings(url.replace("postgresql://", "postgresql+asyncpg://", 1)),
                # A worker that dies does not count: the other workers take over its payments.
                failure=lambda: api.failure,
                log_tail=api.log_tail,
            ),
            workers,
        )


def _migrate(folder: Path, settings: dict[str, str]) -> None:
    with ServiceProcess(folder, "migrate", settings) as migration:
        exit_code = migration.wait(READY_MAX_S)
    if exit_code != 0:
        raise Unusable("`payments migrate` failed:\n" + "\n".join(migration.log_tail()))


def _payers() -> list[str]:
    return [_token(f"load-{number}", None) for number in range(1, PAYERS + 1)]


def _token(user: str, role: str | None) -> str:
    return mint(_settings(), user=user, role=role, hours=TOKEN_HOURS)


def _settings(database_url: str | None = None) -> Settings:
    """Return default settings: an installation that this command starts ignores the environment."""
    return Settings.model_construct() if database_url is None else Settings.model_construct(database_url=database_url)
