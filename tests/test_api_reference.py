"""docs/api.md as a reference: its tables and bodies are held against the routes and the models."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.main import create_app
from api.openapi.document import describe
from api.paths import PREFIX
from api.problems import PROBLEM_TYPE
from api.schemas.payments import Payment, PaymentRequest
from api.state import Api
from shared.config.settings import load_settings
from shared.runtime import open_runtime
from tests.support.api_client import added

pytest_plugins = ["tests.support.api_fixtures"]

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text()
# The page says of these in general which operations may answer them.
IN_GENERAL = {"invalid_token", "validation_error", "rate_limited", "unavailable"}
OF_BODIES = {"malformed_request", "body_too_large", "unsupported_media_type"}


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_operation_is_listed_with_its_statuses_and_errors() -> None:
    runtime = open_runtime(load_settings(database_url="postgresql://127.0.0.1:1/x", redis_url="redis://127.0.0.1:1"))
    document = describe(create_app(Api(runtime)))
    described = {
        f"{method.upper()} {path.removeprefix(PREFIX)}": summary_of(operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    listed = {}
    for row in section("Operations").splitlines():
        if row.startswith("| `"):
            _, operation, _, success, errors, _ = row.split("|")
            listed[words(operation)[0]] = (set(re.findall(r"\b[2-5]\d\d\b", success)), set(words(errors)))
    assert listed == described


def summary_of(operation: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Return the statuses without a problem document, and the codes that the page lists by operation."""
    statuses, codes = set(), set()
    for status, response in operation["responses"].items():
        if PROBLEM_TYPE in response.get("content", {}):
            codes |= set(response["content"][PROBLEM_TYPE]["examples"])
        else:
            statuses.add(status)
    has_body = "requestBody" in operation
    assert codes >= OF_BODIES or not has_body
    return statuses, codes - IN_GENERAL - (OF_BODIES if has_body else set())


def test_every_member_of_an_intent_and_of_a_payment_is_listed() -> None:
    _, of_intent, of_payment = section("Bodies").split("| member of a")
    first_cells = [
        [word for row in table.splitlines() if row.startswith("| `") for word in words(row.split("|")[1])]
        for table in (of_intent, of_payment)
    ]
    assert first_cells == [list(PaymentRequest.model_fields), first_cells[1]]
    assert sorted(first_cells[1]) == sorted(Payment.model_fields)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_every_body_on_the_page_is_accepted(user: httpx.AsyncClient) -> None:
    bodies = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", section("Bodies"), re.DOTALL)]
    *methods, intent = bodies
    assert [body["type"] for body in methods] == ["CREDIT_CARD", "DEBIT_CARD", "PAYPAL"]
    for body in methods:
        assert (await user.post("/payment-methods", json=body)).status_code == 201
    paid = await user.post("/payments", json=intent | {"payment_method_id": await added(user)})
    assert paid.status_code == 202
