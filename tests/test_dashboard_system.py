"""The system's page of the dashboard: its settings without a secret, and verifications that admins ask for."""

import html
from collections.abc import Callable
from dataclasses import replace

import pytest

from api.dashboard.pages import TONES
from shared.broker.verify_runs import VerifyStatus, find_verify, say_verify, take_verify
from shared.config.settings import Settings
from shared.delivery_lifecycle import DeliveryStatus
from shared.lifecycle import PaymentStatus
from shared.simulation.rules import RuleState
from tests.support.api_client import RunningApi, opened_with
from tests.support.dashboard_roles import visitor
from tests.support.dashboards import pressed

pytest_plugins = ["tests.support.api_fixtures"]


async def test_the_system_shows_every_setting_and_no_secret(
    make_settings: Callable[..., Settings], redis_url: str
) -> None:
    secrets = {
        "jwt_secret_key": "planted-jwt-secret-of-more-than-32-bytes",
        "data_key": "planted-data-key-of-more-than-32-bytes-x",
        "webhook_signing_secret": "planted-webhook-secret-of-32-bytes-xyz",
    }
    settings = make_settings(**secrets, auth_service_url="http://127.0.0.1:9/planted")
    async with opened_with(settings) as running_api:
        page = html.unescape((await (await visitor(running_api, "admin")).get("/system")).text)
    for name in Settings.model_fields:
        assert f"<code>{name.upper()}</code>" in page
    for secret in (*secrets.values(), redis_url):
        assert secret not in page
    assert "http://127.0.0.1:9/planted" in page


async def test_admins_ask_for_a_verification_and_see_how_far_it_is(running_api: RunningApi) -> None:
    browser, broker = await visitor(running_api, "admin"), running_api.runtime.broker
    answer = await pressed(browser, "/system", "/system/verify")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/system#verify")
    page = (await browser.get("/system")).text
    assert "It waits for a worker" in page
    assert "Verify now" not in page
    taken = await take_verify(broker, "<b>one</b>")
    assert taken is not None
    await say_verify(broker, taken)
    page = (await browser.get("/system")).text
    assert '<progress aria-labelledby="verify-run"></progress>' in page
    assert "keys checked" not in page
    await say_verify(broker, replace(taken, checked=1234, total=5678))
    page = (await browser.get("/system")).text
    assert "1,234 of 5,678 payments and keys checked" in page
    assert '<progress aria-labelledby="verify-run" max="5678" value="1234">' in page
    assert "<b>one</b>" not in page
    await say_verify(broker, replace(taken, status=VerifyStatus.FAILED, failure="It was <b>bad</b>."))
    page = (await browser.get("/system")).text
    assert "It was &lt;b&gt;bad&lt;/b&gt;." in page
    assert "Verify now" in page
    await say_verify(broker, replace(taken, status=VerifyStatus.DONE))
    page = (await browser.get("/system")).text
    assert "has no report" not in page
    assert "Verify now" in page


async def test_when_redis_refuses_it_the_system_is_shown_and_says_so(running_api: RunningApi) -> None:
    browser = await visitor(running_api, "admin")
    redis = running_api.runtime.broker.arq_connection
    # It is full: it answers, and stores nothing.
    await redis.config_set("maxmemory", 1)
    try:
        page = await browser.get("/system")
        assert page.status_code == 200
        assert 'role="alert"' not in page.text
        answer = await pressed(browser, "/system", "/system/verify")
    finally:
        await redis.config_set("maxmemory", 0)
    assert answer.status_code == 503
    assert 'role="alert"' in answer.text
    assert "Verify now" in answer.text


async def test_another_sites_form_asks_for_no_verification(running_api: RunningApi) -> None:
    browser = await visitor(running_api, "admin")
    assert (await browser.post("/system/verify", data={"form": "forged"})).status_code == 403
    assert await find_verify(running_api.runtime.broker) is None


@pytest.mark.parametrize("who", ["service", "user"])
async def test_nobody_else_asks_for_a_verification(running_api: RunningApi, who: str) -> None:
    browser = await visitor(running_api, who)
    assert (await pressed(browser, "/simulator", "/system/verify")).status_code == 403
    assert (await browser.post("/system/verify", data={"form": "forged"})).status_code == 403
    assert await find_verify(running_api.runtime.broker) is None


def test_every_status_has_a_tone() -> None:
    assert set(TONES) == {*PaymentStatus, *DeliveryStatus, *RuleState}
