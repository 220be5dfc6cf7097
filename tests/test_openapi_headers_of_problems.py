"""The headers of problem documents: the OpenAPI document describes each one that is sent, and none that never is."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.config.settings import Settings
from shared.ids import new_id
from tests.support.api_client import order
from tests.support.money import charged
from tests.support.notifications import notification
from tests.support.sent_headers import LIMITS, Sent, described, is_problem, recorded

pytest_plugins = ["tests.support.api_fixtures", "tests.support.openapi_fixtures"]
# No header depends on the database.
ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

RATE_LIMITS = {"ratelimit", "ratelimit-policy"}
# What every problem document with a status has, beside the correlation id and the rate limits.
OF_STATUS = {"401": {"www-authenticate"}, "415": {"accept-encoding"}, "429": {"retry-after"}, "503": {"retry-after"}}


def test_every_problem_document_has_the_headers_of_its_status(document: dict[str, Any]) -> None:
    found = [(key, names) for key, response, names in described(document) if is_problem(response)]
    assert {status for (_, _, status), _ in found} >= OF_STATUS.keys()
    for key, names in found:
        assert names == {"x-correlation-id"} | RATE_LIMITS | OF_STATUS.get(key[2], set()), key


def check_problems(sent: Sent, document: dict[str, Any], *statuses: int) -> None:
    """What was sent has these statuses, each with the headers that are described."""
    names_of = {key: names for key, _, names in described(document)}
    assert {key: names for key, names in sent.items() if names != names_of[key]} == {}
    assert sorted({int(status) for _, _, status in sent}) == list(statuses)


@ON_SQLITE
async def test_refusals_have_the_headers_that_are_described_and_no_other_one(
    make_settings: Callable[..., Settings], document: dict[str, Any]
) -> None:
    async with recorded(make_settings(**LIMITS), document) as (running_api, sent):
        user, stranger = running_api.user(), running_api.client()
        payment = await charged(user, running_api.database)
        sent.clear()
        for path in ("/payments", f"/payments/{payment['id']}", "/callback-secret"):
            await stranger.get(path)
        await stranger.post("/webhooks/payment", json=notification(payment["id"]))
        await user.get("/stats")
        await user.get("/payments/x")
        await user.get("/payments?limit=0")
        await user.post(f"/payments/{payment['id']}/cancel")
        for path in ("/payments", "/payment-methods", f"/payments/{payment['id']}/action"):
            for headers in ({"Content-Type": "application/json"}, {"Content-Encoding": "gzip"}):
                await user.post(path, content=b"{", headers=headers)
        check_problems(sent, document, 400, 401, 403, 404, 409, 415, 422)


@ON_SQLITE
async def test_who_asks_too_often_gets_the_headers_that_are_described(
    make_settings: Callable[..., Settings], document: dict[str, Any]
) -> None:
    async with recorded(make_settings(rate_limit_address="1/day"), document) as (running_api, sent):
        user = running_api.user()
        await user.get("/payments")
        sent.clear()
        await user.get("/payments")
        await user.post("/payments", json={})
        await running_api.client().post("/webhooks/payment", json={})
        check_problems(sent, document, 429)


@ON_SQLITE
async def test_without_a_database_answers_have_the_headers_that_are_described(
    make_settings: Callable[..., Settings], document: dict[str, Any]
) -> None:
    settings = make_settings(database_url="postgresql://127.0.0.1:1/none", **LIMITS)
    async with recorded(settings, document) as (running_api, sent):
        user = running_api.user()
        await user.get("/payments")
        await user.get("/api-keys")
        await user.post("/payments", json=order(str(new_id())))
        await running_api.client(base="").get("/health/ready")
        check_problems(sent, document, 403, 503)
