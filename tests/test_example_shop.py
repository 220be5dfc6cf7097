"""The shop in `examples/` runs, and its customers pay, decline and return."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from cli.local.service import clean_environment
from shared.config.settings import load_settings
from tests.support.api_client import token
from tests.support.approvals import pressed
from tests.support.processes import PaymentsProcess, processes
from tests.support.repository import ROOT
from tests.support.servers import free_port

PROGRAM = ROOT / "examples" / "shop" / "shop.py"
LINES_MAX = 120


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The URL of the shop, beside a service where every good card succeeds."""
    folder: Path = tmp_path_factory.mktemp("shop")
    settings = load_settings(
        port=free_port(),
        database_url=f"sqlite:///{folder}/payments.db",
        payment_processing_delay_min=0,
        payment_processing_delay_max=5,
        payment_success_rate=1,
    )
    port = free_port()
    bearer = token(settings.jwt_secret_key.get_secret_value(), user_id="shop", role="service")
    environment = {
        "API": f"http://127.0.0.1:{settings.port}/api/v1",
        "TOKEN": bearer,
        "SHOP_PORT": str(port),
    }
    up = PaymentsProcess("up", folder / "up", settings)
    with processes(up):
        await up.ready()
        with opened_shop(environment):
            yield f"http://127.0.0.1:{port}"


@contextmanager
def opened_shop(environment: dict[str, str]) -> Iterator[None]:
    """The shop as a process of its own."""
    process = subprocess.Popen(
        [sys.executable, PROGRAM],
        env=clean_environment(os.environ) | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout as output:
        assert "is open at" in output.readline()
        try:
            yield
        finally:
            process.terminate()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("method_id", "button", "words"),
    [
        ("pm_test_paypal", "approve", "is paid"),
        ("pm_test_3ds_required", "approve", "is paid"),
        ("pm_test_paypal", "decline", "did not approve"),
        ("pm_test_visa", None, "is paid"),
    ],
)
async def test_a_customer_pays_or_declines_and_sees_the_result(
    shop: str, method_id: str, button: str | None, words: str
) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as browser:
        cart = await browser.get(shop)
        assert f"value={method_id}" in cart.text
        sent = await browser.post(f"{shop}/pay", data={"method": method_id})
        assert sent.status_code == 303
        target = str(sent.url.join(sent.headers["location"]))
        if button is not None:
            answer = await pressed(browser, target, button)
            result = await browser.get(answer.url.join(answer.headers["location"]))
            target = result.headers["refresh"].partition("url=")[2]
        assert target.startswith(f"{shop}/paid?payment_id=")
        assert words in (await browser.get(target)).text


@pytest.mark.asyncio(loop_scope="module")
async def test_the_query_of_the_way_back_is_not_believed(shop: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as browser:
        forged = await browser.get(f"{shop}/paid", params={"payment_id": "x", "status": "COMPLETED"})
        assert (forged.status_code, "is paid" in forged.text) == (404, False)
        assert (await browser.post(f"{shop}/pay", data={"method": "pm_test_lost_card"})).status_code == 404


def test_it_is_short_and_needs_nothing_but_python() -> None:
    lines = PROGRAM.read_text().splitlines()
    assert len(lines) < LINES_MAX
    imported = {line.split()[1].partition(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert imported <= sys.stdlib_module_names
