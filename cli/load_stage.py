"""What a load is sent to: the embedded default, a PostgreSQL stack with workers that come and go, or somebody's URL.

What is started here ends here, and sees none of the operator's settings.
"""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from cli.demo_stage import ROOT, Service
from cli.embedded_valkey import EmbeddedValkey
from cli.load_client import Api, Unusable
from cli.load_plan import Refused
from cli.local_postgres import LocalPostgres
from cli.tokens import mint
from shared.config import Settings, is_loopback

PAYERS = 20  # users of a stack of our own; somebody else's deployment knows only the token it gave us
READY_MAX_S = 60  # it takes 2 s; the first start on a loaded machine much longer
TARGET_READY_MAX_S = 30  # somebody may have started it a moment ago
LOOK_AGAIN_S = 0.1
TOKEN_HOURS = 2  # more than the longest run and its end take
# As the demo's starter, for any command: the pipe on standard input ends when we do, however that happens.
STARTER = """
import os, signal, sys, threading

def stop_with_the_load():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=stop_with_the_load, daemon=True).start()
sys.path.insert(0, sys.argv[1])
from cli.main import app
app(sys.argv[2:])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One service that can be loaded."""

    url: str
    words: str  # what it is
    payers: Sequence[str]  # tokens of those who pay
    watcher: str  # the token that asks for figures and lists
    settings: Settings | None = None  # of a stack of our own: where its books are
    health: Callable[[], str | None] = field(default=lambda: None)  # what is wrong with its processes
    last_words: Callable[[], Sequence[str]] = field(default=list)

    @property
    def is_ours(self) -> bool:
        """We started it, and its data is gone with it."""
        return self.settings is not None


async def until_ready(stage: Stage, api: Api, say: Callable[[str], None]) -> None:
    """Return when the service can take and process payments. Raises Unusable if it ends or takes too long."""
    bound_s = READY_MAX_S if stage.is_ours else TARGET_READY_MAX_S
    deadline = time.monotonic() + bound_s
    has_said = stage.is_ours
    while not await api.is_ready():
        if not has_said:
            say(f"Waiting for {stage.url} to be ready ...")
            has_said = True
        if trouble := stage.health():
            raise Unusable(trouble)
        if time.monotonic() > deadline:
            raise Unusable(f"{stage.url} is not ready after {bound_s} s: look at its /health/ready")
        await asyncio.sleep(LOOK_AGAIN_S)


def target(url: str, token: str, *, is_mine: bool) -> Stage:
    """Somebody's running deployment. Raises Refused unless it is on this machine or said to be one's own."""
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.scheme in {"http", "https"} and parts.port != 0 else None
    except ValueError:
        host = None
    if not host:
        raise Refused(f"--target {url}: write a URL such as http://127.0.0.1:8009")
    if not token:
        raise Refused("--target needs --token (or PAYMENTS_TOKEN): payments token --user load --role admin")
    if not is_loopback(host) and not is_mine:
        raise Refused(
            f"--target {url}: {host} is another machine. A load can bring a service down, and it leaves payments "
            "behind: add --target-is-mine if it is yours to load"
        )
    address = url.rstrip("/").removesuffix("/api/v1")
    return Stage(url=address, words="a running deployment", payers=(token,), watcher=token)


@contextmanager
def embedded(folder: Path, *, slots: int | None) -> Iterator[Stage]:
    """`payments up` as it comes: one process, SQLite, a Valkey of its own."""
    with Service(folder, **({} if slots is None else {"WORKER_CONCURRENCY": str(slots)})) as service:
        ended = "the service ended with exit code {}"
        yield Stage(
            url=service.url,
            words="the embedded default: one process, SQLite, a Valkey of its own",
            payers=_payers(),
            watcher=_token("load-watcher", "admin"),
            settings=_settings(f"sqlite+aiosqlite:///{folder / 'var' / 'payments.db'}"),
            health=lambda: None if service.exit_code is None else ended.format(service.exit_code),
            last_words=service.last_words,
        )


class Part(Service):
    """One `payments COMMAND` of a stack, in a folder of its own."""

    def __init__(self, command: str, folder: Path, **settings: str) -> None:
        super().__init__(folder, **settings)
        self.command = command

    def start(self) -> None:
        """Start it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(  # noqa: S603 - this interpreter and this code
                [sys.executable, "-c", STARTER, str(ROOT), self.command],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the load, which then stops it
            )

    def ask_to_stop(self) -> None:
        """Let it begin to stop; `stop` waits for the end."""
        if self._child is not None:
            self._child.terminate()

    @property
    def trouble(self) -> str | None:
        """What is wrong with it while it should run."""
        return None if self.exit_code is None else f"payments {self.command} ended with exit code {self.exit_code}"


class Workers:
    """The workers of a stack: as many as asked for, started and stopped while it runs."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self._settings = settings
        self._running: list[Part] = []
        self._started = 0

    async def scale(self, count: int, is_alive: Callable[[], Awaitable[int | None]]) -> None:
        """Have `count` workers and return when that many say that they are alive. Raises Unusable if they do not."""
        self._running = [part for part in self._running if part.exit_code is None]
        while len(self._running) < count:
            self._started += 1
            part = Part("worker", self._folder / f"worker-{self._started}", **self._settings)
            self._running.append(part)
            part.start()
        surplus = self._running[count:]
        del self._running[count:]
        await asyncio.gather(*(asyncio.to_thread(part.stop) for part in surplus))
        deadline = time.monotonic() + READY_MAX_S
        while await is_alive() != count:
            if trouble := self.trouble:
                raise Unusable(trouble)
            if time.monotonic() > deadline:
                raise Unusable(f"{count} workers are not at work after {READY_MAX_S} s")
            await asyncio.sleep(LOOK_AGAIN_S)

    @property
    def trouble(self) -> str | None:
        """What is wrong with those that should run."""
        return next((part.trouble for part in self._running if part.trouble), None)

    def stop(self) -> None:
        """End all of them, side by side: what is in the gateway is finished first."""
        for part in self._running:
            part.ask_to_stop()
        for part in self._running:
            part.stop()
        self._running.clear()


@contextmanager
def stack(folder: Path, *, slots: int) -> Iterator[tuple[Stage, Workers]]:
    """PostgreSQL (every commit durable), Valkey and an API; the workers are the caller's to scale.

    Raises CannotStart if there is no PostgreSQL, Unusable if the rest does not start.
    """
    with contextlib.ExitStack() as running:
        postgres = running.enter_context(LocalPostgres(fsync=True))
        valkey = running.enter_context(EmbeddedValkey(folder / "valkey"))
        url = postgres.create_database("load")
        settings = {"DATABASE_URL": url, "REDIS_URL": valkey.url}
        _migrate(folder / "migrate", settings)
        api = running.enter_context(Part("api", folder / "api", **settings))
        workers = Workers(folder, **settings, WORKER_CONCURRENCY=str(slots))
        running.callback(workers.stop)
        yield (
            Stage(
                url=api.url,
                words=f"PostgreSQL, Valkey, one API; workers of {slots} slots",
                payers=_payers(),
                watcher=_token("load-watcher", "admin"),
                settings=_settings(url.replace("postgresql://", "postgresql+asyncpg://", 1)),
                health=lambda: api.trouble,  # a worker may die: that is what the others are for
                last_words=api.last_words,
            ),
            workers,
        )


def _migrate(folder: Path, settings: dict[str, str]) -> None:
    with Part("migrate", folder, **settings) as migration:
        deadline = time.monotonic() + READY_MAX_S
        while migration.exit_code is None and time.monotonic() < deadline:
            time.sleep(LOOK_AGAIN_S)
    if migration.exit_code != 0:
        raise Unusable("payments migrate failed:\n" + "\n".join(migration.last_words()))


def _payers() -> list[str]:
    return [_token(f"load-{number}", None) for number in range(1, PAYERS + 1)]


def _token(user: str, role: str | None) -> str:
    return mint(_settings(), user=user, role=role, hours=TOKEN_HOURS)


def _settings(database_url: str | None = None) -> Settings:
    """The defaults, which is what our stacks run on, whatever this environment says."""
    return Settings.model_construct() if database_url is None else Settings.model_construct(database_url=database_url)
