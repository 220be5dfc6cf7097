"""What the guides give to copy works: the receiver of webhooks, the complete event, and the settings for tests."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml

from cli.local.service import clean_environment
from shared.config.settings import Settings, load_settings
from tests.support.api_client import card, order
from tests.support.processes import PaymentsProcess, Shop, processes
from tests.support.receivers import receiver
from tests.support.repository import ROOT
from tests.support.servers import free_port
from tests.support.waiting import eventually

WEBHOOKS = (ROOT / "docs" / "webhooks.md").read_text()
TESTING = (ROOT / "docs" / "testing.md").read_text()
LINES_OF_THE_RECEIVER = 15


def block(page: str, language: str, containing: str = "") -> str:
    """The first code block of a page in a language that contains these words."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)
    return next(text for text in blocks if containing in text)


def shape(value: Any) -> Any:
    """The members of a document and the types of their values."""
    return {name: shape(each) for name, each in value.items()} if isinstance(value, dict) else type(value).__name__


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Settings]:
    settings = load_settings(
        port=free_port(),
        database_url=f"sqlite:///{tmp_path}/payments.db",
        payment_processing_delay_min=0,
        payment_processing_delay_max=5,
        payment_success_rate=1,
        webhook_retry_schedule=(0.1,) * 20,
        relay_interval_s=0.1,
    )
    up = PaymentsProcess("up", tmp_path / "up", settings)
    with processes(up):
        await up.ready()
        yield settings


async def test_the_receiver_to_copy_takes_a_real_delivery_and_no_forged_one(service: Settings, tmp_path: Path) -> None:
    code = block(WEBHOOKS, "python", "HTTPServer")
    assert len([line for line in code.splitlines() if line]) <= LINES_OF_THE_RECEIVER
    port, printed = free_port(), tmp_path / "printed"
    async with Shop(service) as shop:
        secret = (await shop.http.get("/callback-secret")).json()["secret"]
        with printed.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, stdout=output, stderr=subprocess.DEVNULL,
                env={**os.environ, "WEBHOOK_SECRET": secret, "PORT": str(port)},
            )  # fmt: skip
        try:
            await shop.add_card()
            await shop.pay(callback_url=f"http://127.0.0.1:{port}/")
            await eventually(lambda: "\n" in printed.read_text())
            assert re.fullmatch(r"\S+ payment\.completed COMPLETED\n", printed.read_text())
            async with httpx.AsyncClient(trust_env=False) as http:
                forged = await http.post(
                    f"http://127.0.0.1:{port}/",
                    content=b'{"type": "payment.completed"}',
                    headers={"webhook-id": "x", "webhook-timestamp": "1", "webhook-signature": "v1,x"},
                )
                assert forged.status_code == 401
            assert printed.read_text().count("\n") == 1
        finally:
            process.kill()
            await process.wait()


async def test_the_complete_event_has_the_members_of_a_real_one(service: Settings) -> None:
    documented = json.loads(block(WEBHOOKS, "json", "payment.completed"))
    async with receiver() as shop_server, Shop(service) as shop:
        await shop.add_card()
        await shop.pay(callback_url=shop_server.url, metadata={"basket": "7"})
        await eventually(lambda: shop_server.requests)
        real = shop_server.requests[0].event
    assert shape(documented) == shape(real)
    moments = [documented["data"]["payment"][name] for name in ("created_at", "updated_at", "processed_at")]
    assert moments == sorted(moments)


# -- settings for tests


@contextlib.asynccontextmanager
async def as_documented(folder: Path, port: int) -> AsyncIterator[dict[str, str]]:
    """The service as the page starts it, in a shell of its own; yields the environment that the page exports."""
    script = block(TESTING, "sh").replace("PORT=8009", f"PORT={port}")
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        "bash", "-euc", f"{script}\necho\nenv\necho ready\nwait", cwd=folder, start_new_session=True,
        env={**clean_environment(os.environ), "PATH": programs, "TMPDIR": str(folder)},
        stdout=asyncio.subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        printed = ""
        while not printed.endswith("\nready\n"):
            line = await asyncio.wait_for(process.stdout.readline(), 100)
            assert line, f"it ended: {printed} {(folder / 'payments.log').read_text()}"
            printed += line.decode()
        yield dict(re.findall(r"^(\w+)=(.*)$", printed, flags=re.MULTILINE))
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 30)


@pytest.mark.timeout(300)
async def test_the_settings_for_tests_are_fast_and_the_same_every_time(tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []
    for name in ("first", "second"):
        folder, port = tmp_path / name, free_port()
        folder.mkdir()
        async with as_documented(folder, port) as environment:
            headers = {"Authorization": f"Bearer {environment['TOKEN']}", "Prefer": "wait=10"}
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}/api/v1", headers=headers, trust_env=False
            ) as http:
                assert (await http.get("/payments")).json()["payments"] == []
                for number in ("4242424242424242", "4000000000009995"):
                    method = (await http.post("/payment-methods", json=card(number))).json()["id"]
                    key = {"Idempotency-Key": f"try-{number}"}
                    paid = await http.post("/payments", json=order(method), headers=key)
                    assert (paid.status_code, paid.elapsed.total_seconds() < 3) == (201, True)
                    found.append(paid.json())
    assert [(payment["status"], payment["failure_code"]) for payment in found] == [
        ("COMPLETED", None), ("FAILED", "insufficient_funds"),
    ] * 2  # fmt: skip


def test_the_workflow_sets_what_the_page_sets_and_runs_what_it_runs() -> None:
    workflow = yaml.safe_load(block(TESTING, "yaml"))
    [job] = workflow["jobs"].values()
    assert {name.lower() for name in job["env"]} <= Settings.model_fields.keys()
    shell = block(TESTING, "sh")
    exported = dict(re.findall(r"(\b[A-Z_]+)=([^\s\"]+)", shell))
    assert {name: str(value) for name, value in job["env"].items()}.items() <= exported.items()
    load_settings(**{name.lower(): str(value) for name, value in job["env"].items()})
    steps = [step["run"] for step in job["steps"] if "run" in step]
    [curl] = re.findall(r"^curl .*$", shell, flags=re.MULTILINE)
    assert curl in steps
    assert "make --directory payment-service setup" in steps
    assert any("payments up" in step and step.endswith("&") for step in steps)


# -- backup and restore


async def test_a_backup_of_a_running_service_has_all_that_was_committed(service: Settings, tmp_path: Path) -> None:
    command = block((ROOT / "docs" / "operations.md").read_text(), "sh", ".backup(")
    source, copy = tmp_path / "payments.db", tmp_path / "backup.db"
    async with Shop(service) as shop:
        await shop.add_card()
        paid = (await shop.pay(headers={"Prefer": "wait=20"})).json()
        script = command.replace("var/payments.db", str(source)).replace("backup.db", str(copy))
        process = await asyncio.create_subprocess_exec("bash", "-euc", script)
        assert await process.wait() == 0
    settings = service.model_copy(update={"port": free_port(), "database_url": f"sqlite+aiosqlite:///{copy}"})
    restored = PaymentsProcess("up", tmp_path / "restored", settings, DATABASE_URL=f"sqlite:///{copy}")
    with processes(restored):
        await restored.ready()
        async with Shop(settings) as shop:
            found = await shop.payment(paid["id"])
    assert {**found, "updated_at": ""} == {**paid, "updated_at": ""}
