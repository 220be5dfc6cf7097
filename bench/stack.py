"""The service under test: real processes on free ports of loopback, started here and gone afterwards."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil

from cli.tokens import mint
from shared.config import Settings, load_settings
from tests.servers import PostgresServer, ValkeyServer, free_port, wait_until

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
ROOT = Path(__file__).resolve().parent.parent
ARQ = str(Path(sys.executable).with_name("arq"))
COMMAND = [sys.executable, "-c", "from cli.main import app; app()"]


@dataclass
class Stack:
    """A running service and its receiver."""

    url: str
    receiver_url: str
    settings: Settings
    processes: dict[str, psutil.Process] = field(default_factory=dict)

    @property
    def client(self) -> httpx.Client:
        """A client of the API as the user that pays."""
        return self._client(user="1", role=None)

    def reader(self) -> httpx.Client:
        """A client who may see everything."""
        return self._client(user="bench", role="admin")

    def methods(self) -> list[str]:
        """Ids of one payment method of each type."""
        card = {"exp_month": 12, "exp_year": 2040, "cvv": "123"}
        wanted: list[dict[str, Any]] = [
            {"type": "CREDIT_CARD", "payment_details": {**card, "card_number": "4242424242424242"}},
            {"type": "DEBIT_CARD", "payment_details": {**card, "card_number": "4000056655665556"}},
            {"type": "PAYPAL", "payment_details": {"email": "shopper@example.com"}},
        ]
        with self.client as client:
            return [client.post("/payment-methods", json=method).raise_for_status().json()["id"] for method in wanted]

    def register_receiver(self) -> None:
        """Have every outcome delivered to the receiver."""
        with self._client(user="bench", role="service") as client:
            endpoint = {"name": "bench", "url": f"{self.receiver_url}/hook"}
            client.post("/webhook-endpoints", json=endpoint).raise_for_status()

    def delete_endpoint(self, endpoint_id: str) -> None:
        """Have nothing delivered there any more."""
        with self.reader() as client:
            client.delete(f"/webhook-endpoints/{endpoint_id}").raise_for_status()

    def token(self) -> str:
        """A token of the user that pays."""
        return mint(self.settings, user="1", role=None, hours=1)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds that each part has used so far, with its children."""
        return {name: _cpu_s(process) for name, process in self.processes.items()}

    def memory_mib(self, name: str) -> float:
        """Resident memory of a part."""
        return float(self.processes[name].memory_info().rss) / 2**20

    def _client(self, *, user: str, role: str | None) -> httpx.Client:
        bearer = mint(self.settings, user=user, role=role, hours=1)
        return httpx.Client(
            base_url=f"{self.url}/api/v1", headers={"Authorization": f"Bearer {bearer}"}, timeout=30, trust_env=False
        )


@contextlib.contextmanager
def production(**overrides: str) -> Iterator[Stack]:
    """PostgreSQL (commits durable), Valkey, one API and one worker process, default settings but for `overrides`."""
    with (
        tempfile.TemporaryDirectory(prefix="payments-bench-") as folder,
        PostgresServer(fsync=True) as postgres,
        ValkeyServer(Path(folder) / "valkey") as valkey,
    ):
        environment = {"DATABASE_URL": postgres.create_database("bench"), "REDIS_URL": valkey.url, **overrides}
        with _processes(Path(folder), environment, {"api": "api", "worker": "worker"}) as stack:
            stack.processes["postgres"] = psutil.Process(_child_of(postgres))
            stack.processes["valkey"] = psutil.Process(_child_of(valkey))
            yield stack


@contextlib.contextmanager
def embedded(**overrides: str) -> Iterator[Stack]:
    """`payments up` as it comes: one process, SQLite, its own Valkey."""
    with (
        tempfile.TemporaryDirectory(prefix="payments-bench-") as folder,
        _processes(Path(folder), overrides, {"up": "up"}) as stack,
    ):
        yield stack


class Typical(Stack):
    """The baseline: it takes any method and tells one receiver, without being asked."""

    def methods(self) -> list[str]:
        """Any."""
        return ["any"]

    def register_receiver(self) -> None:
        """It was named at the start."""


@contextlib.contextmanager
def typical() -> Iterator[Stack]:
    """The usual way of building it (`bench.baseline`) on the same PostgreSQL and Valkey, one API and one worker."""
    with (
        tempfile.TemporaryDirectory(prefix="payments-bench-") as folder,
        PostgresServer(fsync=True) as postgres,
        ValkeyServer(Path(folder) / "valkey") as valkey,
        _baseline(Path(folder), "bench.baseline.api:app", postgres, valkey) as (stack, env),
        _process([ARQ, "bench.baseline.worker.WorkerSettings"], ROOT, Path(folder) / "worker.log", env) as worker,
    ):
        stack.processes |= {
            "worker": worker,
            "postgres": psutil.Process(_child_of(postgres)),
            "valkey": psutil.Process(_child_of(valkey)),
        }
        yield stack


@contextlib.contextmanager
def bare_route() -> Iterator[Stack]:
    """The framework alone, with the same models: the ceiling."""
    with (
        tempfile.TemporaryDirectory(prefix="payments-bench-") as folder,
        _baseline(Path(folder), "bench.baseline.bare:app", None, None) as (stack, _env),
    ):
        yield stack


@contextlib.contextmanager
def _baseline(
    folder: Path, app: str, postgres: PostgresServer | None, valkey: ValkeyServer | None
) -> Iterator[tuple[Stack, dict[str, str]]]:
    port, receiver_port = free_port(), free_port()
    env = _clean_environment()
    settings = load_settings(port=port)
    env["JWT_SECRET_KEY"] = settings.jwt_secret_key.get_secret_value()
    if postgres and valkey:
        url = postgres.create_database("bench").replace("postgresql://", "postgresql+asyncpg://")
        receiver = f"http://127.0.0.1:{receiver_port}/hook"
        env |= {"BASELINE_DATABASE_URL": url, "REDIS_URL": valkey.url, "BASELINE_RECEIVER": receiver}
    serve = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--no-access-log", "--log-level", "warning"]
    stack = Typical(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{receiver_port}", settings)
    with (
        _process(_receiver(receiver_port), ROOT, folder / "receiver.log", env) as receiving,
        _process(serve, ROOT, folder / "api.log", env) as serving,
    ):
        stack.processes = {"receiver": receiving, "api": serving}
        wait_until(lambda: _answers(stack.url), timeout_s=START_TIMEOUT_S, what="the baseline answers")
        yield stack, env


@contextlib.contextmanager
def _processes(folder: Path, environment: dict[str, str], commands: dict[str, str]) -> Iterator[Stack]:
    port, receiver_port = free_port(), free_port()
    everyone = _clean_environment()
    env = {**everyone, "PORT": str(port), **environment}
    settings = load_settings(**{name.lower(): value for name, value in {"PORT": str(port), **environment}.items()})
    stack = Stack(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{receiver_port}", settings)
    with contextlib.ExitStack() as running:
        stack.processes["receiver"] = running.enter_context(
            _process(_receiver(receiver_port), ROOT, folder / "receiver.log", everyone)
        )
        if "api" in commands:
            subprocess.run([*COMMAND, "migrate"], env=env, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for name, command in commands.items():
            log = folder / f"{name}.log"
            stack.processes[name] = running.enter_context(_process([*COMMAND, command], folder, log, env))
        wait_until(lambda: _answers(stack.url), timeout_s=START_TIMEOUT_S, what="the API answers")
        yield stack


@contextlib.contextmanager
def _process(command: list[str], cwd: Path, log: Path, env: dict[str, str]) -> Iterator[psutil.Process]:
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


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _child_of(server: PostgresServer | ValkeyServer) -> int:
    assert server.pid is not None  # noqa: S101 - it was just started
    return server.pid


def _cpu_s(process: psutil.Process) -> float:
    """Children that have ended count, those that are alive too."""
    times = process.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:2])
    return float(total)


def run_load(stack: Stack, plan: dict[str, Any]) -> dict[str, Any]:
    """Run one load in a process of its own; see `bench.load`."""
    with tempfile.TemporaryDirectory(prefix="payments-bench-") as folder:
        plan_file, result_file = Path(folder) / "plan", Path(folder) / "result"
        whole = {"url": f"{stack.url}/api/v1/payments", "token": stack.token(), **plan}
        plan_file.write_bytes(orjson.dumps(whole))
        subprocess.run(
            [sys.executable, "-m", "bench.load", plan_file, result_file],
            check=True,
            timeout=plan["duration_s"] + 2 * START_TIMEOUT_S,
            cwd=ROOT,
        )
        result: dict[str, Any] = orjson.loads(result_file.read_bytes())
        return result
