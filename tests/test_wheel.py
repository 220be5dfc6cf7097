"""The wheel: built, installed with its locked dependencies beside a project that has its own `api` and `shared`."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest

from cli.local.service import clean_environment, free_port
from tests.support.repository import PROJECT, ROOT, files
from tests.support.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOMS = {"api", "worker", "shared", "cli", "migrations"}
NEIGHBOUR = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "shop"
version = "1"
[tool.setuptools]
packages = ["api", "shared"]
""",
    "api/__init__.py": "from shared import OWNER\n",
    "shared/__init__.py": "OWNER = 'the shop'\n",
}
STARTS_WITHIN_S = 60
ENDS_WITHIN_S = 30


@dataclass(frozen=True, slots=True)
class Installation:
    """A virtual environment with the wheel and the shop, and the folder of the shop's code."""

    wheel: Path
    programs: Path
    shop: Path

    def run(self, *command: str, folder: Path) -> str:
        """What a program of the environment prints."""
        return subprocess.run(
            [self.programs / command[0], *command[1:]], cwd=folder, env=self.environment(), capture_output=True,
            text=True, check=True, timeout=120,
        ).stdout  # fmt: skip

    def environment(self, **more: str) -> dict[str, str]:
        """Where the shop's code is on the path, as its developers have it."""
        return {**clean_environment(os.environ), "PYTHONPATH": str(self.shop), **more}

    @contextmanager
    def up(self, folder: Path) -> Iterator[tuple[str, Path]]:
        """The URL and the log of a `payments up` in `folder`, which ends well."""
        port, log = free_port(), folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [self.programs / "payments", "up"], cwd=folder, stdout=output, stderr=subprocess.DEVNULL,
                env=self.environment(
                    PORT=str(port), PAYMENT_PROCESSING_DELAY_MIN="0", PAYMENT_PROCESSING_DELAY_MAX="5"
                ),
            )  # fmt: skip
        try:
            yield f"http://127.0.0.1:{port}", log
        finally:
            process.terminate()
            code = process.wait(ENDS_WITHIN_S)
        assert code == 0, log.read_text()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("wheel")
    source, shop, environment = folder / "source", folder / "shop", folder / "venv"
    for path in files():
        target = source / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for name, text in NEIGHBOUR.items():
        (shop / name).parent.mkdir(parents=True, exist_ok=True)
        (shop / name).write_text(text)
    build: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
    ]
    subprocess.run([*build, folder / "dist", source, shop], check=True, timeout=120)
    [wheel] = (folder / "dist").glob("payment_service-*.whl")
    [neighbour] = (folder / "dist").glob("shop-*.whl")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, timeout=120)
    install = [str(environment / "bin" / "python"), "-m", "pip", "--quiet", "install"]
    subprocess.run([*install, "--require-hashes", "-r", ROOT / "requirements.txt"], check=True, timeout=500)
    subprocess.run([*install, "--no-deps", wheel, neighbour], check=True, timeout=120)
    return Installation(wheel, environment / "bin", shop)


def test_everything_stands_under_one_name(installation: Installation) -> None:
    names = ZipFile(installation.wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"payment_service"}
    inside = {name.split("/")[1] for name in names if name.count("/") > 1 and name.startswith("payment_service/")}
    assert inside == ROOMS
    source = {
        path.relative_to(ROOT).as_posix().replace("alembic/", "migrations/")
        for room in ("api", "worker", "shared", "cli", "alembic")
        for path in (ROOT / room).rglob("*")
        if path.suffix in {".py", ".mako", ".html", ".css", ".js", ".svg"}
    }
    assert {name.removeprefix("payment_service/") for name in names if name.count("/") > 1} >= source
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_projects_own_packages_stay_its_own(installation: Installation, tmp_path: Path) -> None:
    printed = installation.run("python", "-c", "import api, shared; print(api.OWNER, shared.__file__)", folder=tmp_path)
    assert printed.startswith(f"the shop {installation.shop}")
    assert installation.run("python", "-m", "payment_service", "--version", folder=installation.shop) == (
        installation.run("payments", "--version", folder=tmp_path)
    )
    assert PROJECT["project"]["version"] in installation.run("payments", "--version", folder=tmp_path)


async def test_up_migrates_and_pays_beside_the_project(installation: Installation, tmp_path: Path) -> None:
    """It is started in the project's folder, where the project's `api` and `shared` lie first on the path."""
    shutil.copytree(installation.shop, tmp_path / "shop")
    folder = tmp_path / "shop"
    bearer = installation.run("payments", "token", folder=folder).strip()
    with installation.up(folder) as (url, log):
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:

            async def is_ready() -> bool:
                try:
                    return (await http.get("/health/ready")).is_success
                except httpx.TransportError:
                    return False

            until = time.monotonic() + STARTS_WITHIN_S
            while not await is_ready():
                assert time.monotonic() < until, log.read_text()
            headers = {"Authorization": f"Bearer {bearer}", "Prefer": "wait=20"}
            card = {"card_number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvv": "123"}
            method = await http.post(
                "/api/v1/payment-methods", headers=headers, json={"type": "CREDIT_CARD", "payment_details": card}
            )
            body = {"order_id": "1", "amount": 1585, "currency": "USD", "payment_method_id": method.json()["id"]}
            payment = await http.post("/api/v1/payments", headers=headers, json=body)
            assert payment.json()["status"] in {"COMPLETED", "FAILED"}, payment.text
        await eventually(lambda: "payment.completed" in log.read_text() or "payment.failed" in log.read_text())
    assert (folder / "var" / "payments.db").exists()
    for line in log.read_text().splitlines():
        assert "defect" not in json.loads(line)["event"]
    assert "OWNER" in (folder / "shared" / "__init__.py").read_text()


def test_what_starts_processes_of_its_own_starts_ours(installation: Installation, tmp_path: Path) -> None:
    printed = installation.run("payments", "load", "--rate", "10", "--duration", "2", folder=installation.shop)
    assert "No payment was lost, and none was charged twice." in printed
