"""Clients generated from the OpenAPI document of a running service pay, with the programs of docs/clients.md."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from cli.tokens import mint
from tests.support.client_generators import install_programs, install_python, install_typescript, run
from tests.support.repository import ROOT
from tests.support.survival import MakeSettings, a_service, on_sqlite
from tests.test_guides import block

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), on_sqlite]

PAGE = (ROOT / "docs" / "clients.md").read_text()
# What each program prints: the end of the payment and its card, the payments of the order, and the problem.
PRINTED = "COMPLETED 4242\n1\n{true} /amount\n"
UNDESCRIBED_HEADERS = "[name: string]"
# What openapi-generator warns of in every document of OpenAPI 3.1 whose schemas have references.
WARNINGS = {"OpenAPI 3.1 support is still in beta.", "Failed to get the schema name: null"}


@dataclass(frozen=True, slots=True)
class Target:
    """A running API and worker, and what a client needs to know of them."""

    url: str
    token: str
    document: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        return {"PAYMENTS_URL": self.url, "PAYMENTS_TOKEN": self.token}

    @property
    def operations(self) -> set[str]:
        """The ids of all operations."""
        return {operation["operationId"] for item in self.document["paths"].values() for operation in item.values()}


@pytest_asyncio.fixture
async def target(make_settings: MakeSettings, tmp_path: Path) -> AsyncIterator[Target]:
    settings = make_settings(payment_success_rate=1)
    url = f"http://127.0.0.1:{settings.port}"
    async with (
        a_service(settings, tmp_path / "service", workers=1),
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        yield Target(url, mint(settings, user="1", role=None, hours=1), (await http.get("/openapi.json")).json())


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generators of Python clients."""
    return install_python(tmp_path_factory.mktemp("generators") / "venv")


async def test_openapi_python_client_pays(target: Target, programs: Path, tmp_path: Path) -> None:
    printed = await run(
        programs / "openapi-python-client", "generate", "--fail-on-warning", "--url", f"{target.url}/openapi.json",
        folder=tmp_path,
        # It formats what it has written.
        PATH=f"{programs}:/usr/bin:/bin",
    )  # fmt: skip
    project = tmp_path / "payment-service-client"
    assert printed.split() == ["Generating", str(project)]
    package = project / "payment_service_client"
    assert {path.stem for path in (package / "api").glob("*/[a-z]*.py")} == target.operations
    models = {path.name: path.read_text() for path in (package / "models").glob("*.py")}
    assert not [name for name in models if re.search(r"type_\d", name)], "an inner object has no name"
    assert not [name for name, text in models.items() if re.search(r"^    \w+: Any\b", text, flags=re.MULTILINE)]
    program = block(PAGE, "python", "payment_service_client")
    printed = await run(
        programs / "python", "-c", program, folder=tmp_path, PYTHONPATH=str(project), **target.environment
    )
    assert printed == PRINTED.format(true="True")


async def test_openapi_typescript_pays(target: Target, tmp_path: Path) -> None:
    folder = install_typescript(tmp_path / "typescript")
    tools = folder / "node_modules" / ".bin"
    printed = await run(
        tools / "openapi-typescript", f"{target.url}/openapi.json", "--output", "payments.ts", folder=folder
    )
    assert "warn" not in printed.lower()
    types = (folder / "payments.ts").read_text()
    described = types.partition("export interface operations {")[2]
    assert target.operations < set(re.findall(r"^    (\w+): \{", described, flags=re.MULTILINE))
    unknown = [name for name in re.findall(r"(\S+(?: string\])?): unknown", types) if name != UNDESCRIBED_HEADERS]
    # The ids that locate a breach, of every kind of breach, and the bodies of requests to paste.
    assert unknown == ["[key: string]"] * 2
    (folder / "pay.ts").write_text(block(PAGE, "ts"))
    assert await run(tools / "tsc", folder=folder) == ""
    assert await run("node", "pay.js", folder=folder, **target.environment) == PRINTED.format(true="true")


async def test_openapi_generator_pays(target: Target, programs: Path, tmp_path: Path) -> None:
    install_programs("java=default-jre-headless")
    printed = await run(
        programs / "openapi-generator-cli", "generate", "-i", f"{target.url}/openapi.json", "-g", "python",
        "--package-name", "payments_client", "-o", "payments-client",
        folder=tmp_path,
    )  # fmt: skip
    warnings = re.findall(r"(?:WARN|ERROR) +\S+ - (.*)", printed)
    assert [text for text in warnings if not text.startswith(tuple(WARNINGS))] == []
    package = tmp_path / "payments-client" / "payments_client"
    texts = [path.read_text() for path in (package / "api").glob("*.py")]
    methods = {name for text in texts for name in re.findall(r"^    def ([a-z]\w+)\(", text, flags=re.MULTILINE)}
    assert target.operations < methods
    assert not [text for text in texts if "Optional[Any]" in text]
    program = block(PAGE, "python", "payments_client")
    printed = await run(
        programs / "python", "-c", program, folder=tmp_path, PYTHONPATH=str(package.parent), **target.environment
    )
    assert printed == PRINTED.format(true="True")
