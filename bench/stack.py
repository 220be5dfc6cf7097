"""Installations for the measures: real processes on free ports of loopback, started and stopped here."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil

from cli.local.postgres import LocalPostgres
from cli.local.service import CHECKOUT, ServiceProcess, clean_environment, free_port, wait_until
from cli.local.valkey import EmbeddedValkey
from cli.tokens import mint
from shared.config.settings import Settings, load_settings
from shared.event_types import DEFAULT_EVENTS

# The user that pays.
USER = "1"
# The parts whose processor time counts. The receiver and the load generator belong to the benchmark.
PARTS = ("api", "worker", "postgres", "valkey")
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
ARQ = str(Path(sys.executable).with_name("arq"))
COMMAND = [sys.executable, "-c", "from cli.main import app; app()"]


@dataclass
class Stack:
    """A running installation with its receiver of webhooks, and its processes by name."""

    url: str
    receiver_url: str
    settings: Settings
    processes: dict[str, psutil.Process] = field(default_factory=dict)

    @property
    def client(self) -> httpx.Client:
        """A client of the API as the user that pays."""
        return self.payer(USER)

    def reader(self) -> httpx.Client:
        """Return a client of the API as an admin, who may see everything."""
        return self._client(user="bench", role="admin")

    def payer(self, user: str) -> httpx.Client:
        """Return a client of the API as a user."""
        return self._client(user=user, role=None)

    def methods(self, user: str = USER) -> list[str]:
        """Add a payment method of each type for a user and return their ids."""
        card = {"exp_month": 12, "exp_year": 2040, "cvv": "123"}
        wanted: list[dict[str, Any]] = [
            {"type": "CREDIT_CARD", "payment_details": {**card, "card_number": "4012888888881881"}},
            {"type": "DEBIT_CARD", "payment_details": {**card, "card_number": "4000056655665556"}},
            {"type": "PAYPAL", "payment_details": {"email": "shopper@example.com"}},
        ]
        with self.payer(user) as client:
            return [client.post("/payment-methods", json=method).raise_for_status().json()["id"] for method in wanted]

    def register_receiver(self, event_types: Sequence[str] = DEFAULT_EVENTS) -> None:
        """Register the receiver as a webhook endpoint, by default for the ends of all payments."""
        self.register(f"{self.receiver_url}/hook", event_types)

    def register(self, url: str, event_types: Sequence[str] = DEFAULT_EVENTS) -> None:
        """Register a webhook endpoint, by default for the ends of all payments."""
        with self._client(user="bench", role="service") as client:
            endpoint = {"name": "bench", "url": url, "event_types": list(event_types)}
            client.post("/webhook-endpoints", json=endpoint).raise_for_status()

    def delete_endpoint(self, endpoint_id: str) -> None:
        """Delete the webhook endpoint, so that nothing is delivered to it any more."""
        with self.reader() as client:
            client.delete(f"/webhook-endpoints/{endpoint_id}").raise_for_status()

    def token(self) -> str:
        """Return an access token of the user that pays."""
        return mint(self.settings, user=USER, role=None, hours=1)

    def service_token(self) -> str:
        """Return an access token of a service, which may capture and refund."""
        return mint(self.settings, user="bench", role="service", hours=1)

    def cpu_s(self) -> dict[str, float]:
        """Return the processor seconds that each process has used so far, with its children."""
        return {name: _cpu_s(process) for name, process in self.processes.items()}

    def memory_mib(self, name: str) -> float:
        """Return the resident memory of a process in MiB."""
        return float(self.processes[name].memory_info().rss) / 2**20

    def _client(self, *, user: str, role: str | None) -> httpx.Client:
        bearer = mint(self.settings, user=user, role=role, hours=1)
        return httpx.Client(
            base_url=f"{self.url}/api/v1", headers={"Authorization": f"Bearer {bearer}"}, timeout=30, trust_env=False
        )


@contextlib.contextmanager
def production(overrides: Mapping[str, str] | None = None, *, checkout: Path = CHECKOUT) -> Iterator[Stack]:
    """Start PostgreSQL with durable commits, Valkey, one API and one worker; stop them when the block ends.

    The settings are the defaults with `overrides`. `checkout` is the folder of the code that API and worker run.
    """
    with (
        tempfile.TemporaryDirectory(prefix="payments-bench-") as folder,
        LocalPostgres(fsync=True) as postgres,
        EmbeddedValkey(Path(folder) / "valkey") as valkey,
    ):
        environment = {"DATABASE_URL": postgres.create_database("bench"), "REDIS_URL": valkey.url, **(overrides or {})}
        with _processes(Path(folder), environment, ("api", "worker"), checkout) as stack:
            stack.processes |= {"postgres": _process_of(postgres), "valkey": _process_of(valkey)}
            yield stack


@contextlib.contextmanager
def embedded() -> Iterator[Stack]:
    """Start `payments up` with default settings: one process, SQLite and its own Valkey."""
    with (
        tempfile.TemporaryDirectory(prefix="payments-bench-") as folder,
        _processes(Path(folder), {}, ("up",)) as stack,
    ):
        yield stack


class Typical(Stack):
    """The usual design: it accepts any payment method, and delivers to the receiver that it was started with."""

    def methods(self, user: str = USER) -> list[str]:  # noqa: ARG002 - the baseline has no users
        """Return one arbitrary id: the baseline does not check payment methods."""
        return ["any"]

    def register_receiver(self, event_types: Sequence[str] = DEFAULT_EVENTS) -> None:
        """Do nothing: the baseline was started with its receiver."""


@contextlib.contextmanager
def typical() -> Iterator[Stack]:
    """Start the usual design (`bench.baseline`) on the same PostgreSQL and Valkey, with one API and one worker."""
    with (
        tempfile.TemporaryDirectory(prefix="payments-bench-") as folder,
        LocalPostgres(fsync=True) as postgres,
        EmbeddedValkey(Path(folder) / "valkey") as valkey,
        _baseline(Path(folder), "bench.baseline.api:app", postgres, valkey) as (stack, env),
        process([ARQ, "bench.baseline.worker.WorkerSettings"], CHECKOUT, Path(folder) / "worker.log", env) as worker,
    ):
        stack.processes |= {
            "worker": worker,
            "postgres": _process_of(postgres),
            "valkey": _process_of(valkey),
        }
        yield stack


@contextlib.contextmanager
def bare_route() -> Iterator[Stack]:
    """Start the framework alone with the same models: the most that any design can accept."""
    with (
        tempfile.TemporaryDirectory(prefix="payments-bench-") as folder,
        _baseline(Path(folder), "bench.baseline.bare:app", None, None) as (stack, _env),
    ):
        yield stack


@contextlib.contextmanager
def _baseline(
    folder: Path, app: str, postgres: LocalPostgres | None, valkey: EmbeddedValkey | None
) -> Iterator[tuple[Stack, dict[str, str]]]:
    port, receiver_port = free_port(), free_port()
    env = clean_environment(os.environ)
    settings = load_settings(port=port)
    env["JWT_SECRET_KEY"] = settings.jwt_secret_key.get_secret_value()
    if postgres and valkey:
        url = postgres.create_database("bench").replace("postgresql://", "postgresql+asyncpg://")
        receiver = f"http://127.0.0.1:{receiver_port}/hook"
        env |= {"BASELINE_DATABASE_URL": url, "REDIS_URL": valkey.url, "BASELINE_RECEIVER": receiver}
    serve = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--no-access-log", "--log-level", "warning"]
    stack = Typical(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{receiver_port}", settings)
    with (
        process(_receiver(receiver_port), CHECKOUT, folder / "receiver.log", env) as receiving,
        process(serve, CHECKOUT, folder / "api.log", env) as serving,
    ):
        stack.processes = {"receiver": receiving, "api": serving}
        wait_until(lambda: is_ready(stack.url), timeout_s=START_TIMEOUT_S, what="the baseline answers")
        yield stack, env


@contextlib.contextmanager
def _processes(
    folder: Path, settings: dict[str, str], commands: Sequence[str], checkout: Path = CHECKOUT
) -> Iterator[Stack]:
    port, receiver_port = free_port(), free_port()
    environment = {**settings, "PORT": str(port)}
    values = load_settings(**{name.lower(): value for name, value in environment.items()})
    stack = Stack(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{receiver_port}", values)
    with contextlib.ExitStack() as running:
        receiver_log = folder / "receiver.log"
        stack.processes["receiver"] = running.enter_context(
            process(_receiver(receiver_port), CHECKOUT, receiver_log, clean_environment(os.environ))
        )
        if "api" in commands:
            with ServiceProcess(folder, "migrate", environment, checkout=checkout) as migration:
                if migration.wait(START_TIMEOUT_S) != 0:
                    raise RuntimeError("\n".join(migration.log_tail()))
        for command in commands:
            service = ServiceProcess(folder, command, environment, checkout=checkout)
            running.enter_context(service)
            stack.processes[command] = _process_of(service)
        wait_until(lambda: is_ready(stack.url), timeout_s=START_TIMEOUT_S, what="the API answers")
        yield stack


@contextlib.contextmanager
def process(command: list[str], cwd: Path, log: Path, env: Mapping[str, str] | None = None) -> Iterator[psutil.Process]:
    """Run a command until the block ends; without `env` it sees none of our settings."""
    env = clean_environment(os.environ) if env is None else env
    with log.open("ab") as out:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd, env=env)
    try:
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        try:
            child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _receiver(port: int) -> list[str]:
    return [sys.executable, "-m", "bench.receiver", str(port)]


def is_ready(url: str) -> bool:
    """Return whether the API at `url` says that it is ready."""
    try:
        return httpx.get(f"{url}/health/ready", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _process_of(started: LocalPostgres | EmbeddedValkey | ServiceProcess) -> psutil.Process:
    assert started.pid is not None  # noqa: S101 - it was just started
    return psutil.Process(started.pid)


def _cpu_s(process: psutil.Process) -> float:
    """Return the processor seconds of a process and of its children, ended and alive."""
    times = process.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:2])
    return float(total)


def run_load(stack: Stack, plan: dict[str, Any]) -> dict[str, Any]:
    """Run one load in its own process and return its results; see `bench.load`."""
    with tempfile.TemporaryDirectory(prefix="payments-bench-") as folder:
        plan_file, result_file = Path(folder) / "plan", Path(folder) / "result"
        whole = {"url": f"{stack.url}/api/v1/payments", "token": stack.token(), **plan}
        plan_file.write_bytes(orjson.dumps(whole))
        subprocess.run(
            [sys.executable, "-m", "bench.load", plan_file, result_file],
            check=True,
            timeout=plan["duration_s"] + 2 * START_TIMEOUT_S,
            cwd=CHECKOUT,
        )
        result: dict[str, Any] = orjson.loads(result_file.read_bytes())
        return result
