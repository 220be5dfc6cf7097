"""The OpenAPI description against the running service, by schemathesis: what it may be asked, it answers as described.

Every operation gets requests that fit the description and requests that do not. No answer is a 5xx, every one is
described with its status, type, headers and schema, and what does not fit is refused with a problem document.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from api.auth.principal import Role
from shared import metrics
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, added, held, order, served
from tests.support.rows import assert_sound
from tests.support.waiting import eventually
from tests.support.workers import working

type MakeSettings = Callable[..., Settings]

# Left out: positive_data_acceptance. A description cannot say that a cursor is one of ours, that a card has not
# expired, or which amounts the operator allows: what fits it may be refused all the same, with 422.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method,"
    "allow_header_conformance,use_after_free,ignored_auth"
)
REAL_IDS = """
[[operations]]
include-path-regex = "^/api/v1/payments/"
parameters = {{ "path.payment_id" = "{payment_id}" }}

[[operations]]
include-path-regex = "^/api/v1/payments/[^/]+/capture"
parameters = {{ "path.payment_id" = "{held_id}" }}

[[operations]]
include-path-regex = "^/api/v1/refunds/"
parameters = {{ "path.refund_id" = "{refund_id}" }}

[[operations]]
include-path-regex = "^/api/v1/payment-methods/"
include-method = ["GET", "PATCH"]
parameters = {{ "path.method_id" = "{method_id}" }}

[[operations]]
include-path-regex = "^/api/v1/webhook-endpoints/"
include-method = ["GET", "PATCH"]
parameters = {{ "path.endpoint_id" = "{endpoint_id}" }}

[[operations]]
include-path-regex = "^/api/v1/webhook-deliveries/"
parameters = {{ "path.delivery_id" = "{delivery_id}" }}
"""
END_S = 600
# Schemathesis takes some 20 ms of a core to think of a request; a busy machine manages this many in two minutes.
REQUESTS_MIN = 500


@pytest.fixture
async def running_api(make_settings: MakeSettings) -> AsyncIterator[RunningApi]:
    """API and worker; of a description's example addresses none is looked up."""
    settings = make_settings(payment_success_rate=1, waiters_max=0, webhook_timeout=0.1)
    async with held(service(settings)) as running_api:
        yield running_api


@asynccontextmanager
async def service(settings: Settings) -> AsyncIterator[RunningApi]:
    runtime = open_runtime(settings)
    try:
        async with served(runtime) as running_api, working(runtime):
            yield running_api
    finally:
        await runtime.close()


async def examine(running_api: RunningApi, folder: Path, *options: str, role: str = Role.ADMIN) -> None:
    """Let schemathesis ask whatever it comes up with, in one role: of one address it uses objects that exist."""
    client = running_api.user(role=role)
    (folder / "schemathesis.toml").write_text(REAL_IDS.format(**await objects(running_api, client)))
    command = [
        sys.executable, "-m", "schemathesis.cli", "--no-color", "run", f"{running_api.url}/openapi.json",
        "--header", f"Authorization: {client.headers['authorization']}",
        "--checks", CHECKS, "--continue-on-failure", "--generation-database", "none", "--workers", "2",
        "--warnings", "off", "--request-timeout", "30", "--no-shrink", *options,
    ]  # fmt: skip
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    child = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(END_S):
            output, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
    assert child.returncode == 0, output.decode()[-20_000:]
    await everything_ends(running_api.database)


def answered() -> float:
    """The requests that this process has answered so far."""
    samples = (sample for metric in metrics.http_requests.collect() for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.name.endswith("_total"))


async def objects(running_api: RunningApi, client: httpx.AsyncClient) -> dict[str, str]:
    """Payments of the client that are completed and authorized, a method, a refund, a delivery and its endpoint."""
    endpoint = await running_api.admin().post(
        "/webhook-endpoints", json={"name": "shop", "url": "http://127.0.0.1:9/hook"}
    )
    method_id = await added(client)
    payment = (await client.post("/payments", json=order(method_id))).json()

    async def delivery_id() -> str | None:
        shown = (await client.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
        return shown[0]["id"] if shown else None

    found = await eventually(delivery_id)
    assert found is not None
    held = (await client.post("/payments", json=order(method_id, capture_method="manual"))).json()
    await eventually(lambda: is_authorized(client, held["id"]))
    refund = await running_api.admin().post(f"/payments/{payment['id']}/refunds", json={"amount": 1})
    return {
        "payment_id": payment["id"],
        "held_id": held["id"],
        "refund_id": refund.json()["id"],
        "method_id": method_id,
        "endpoint_id": endpoint.json()["id"],
        "delivery_id": found,
    }


async def is_authorized(client: httpx.AsyncClient, payment_id: str) -> bool:
    return bool((await client.get(f"/payments/{payment_id}")).json()["status"] == "AUTHORIZED")


async def everything_ends(database: Database) -> None:
    """What was accepted on the way is processed like any other payment."""

    async def are_sound() -> bool:
        await assert_sound(database)
        return True

    await eventually(are_sound)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_answers_to_random_requests_are_as_described(running_api: RunningApi, tmp_path: Path) -> None:
    await examine(running_api, tmp_path, "--phases", "examples,fuzzing", "--max-examples", "2")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_answers_at_the_edges_are_as_described(running_api: RunningApi, tmp_path: Path) -> None:
    """Every constraint kept and broken in turn; not at the platform's addresses, which lead to the same code."""
    await examine(running_api, tmp_path, "--phases", "coverage", "--exclude-path-regex", "^/api/payments")


@pytest.mark.slow
@pytest.mark.timeout(END_S)
@pytest.mark.parametrize(
    ("role", "backend"),
    [(Role.USER, "postgresql"), (Role.SERVICE, "postgresql"), (Role.ADMIN, "sqlite")],
    indirect=["backend"],
)
async def test_every_answer_is_as_described_in_every_role_however_long_one_looks(
    running_api: RunningApi, tmp_path: Path, role: Role
) -> None:
    """The quick ones have one role and few requests; these have every phase and thousands of requests each."""
    before = answered()
    await examine(running_api, tmp_path, "--max-examples", "250", "--max-time", "120", role=role)
    assert answered() - before >= REQUESTS_MIN
