"""The way into the dashboard and out of it: sessions, their cookies, and what signs nobody in."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from time import time

import httpx
import pytest

from api.dashboard.entry import LINK_IS_OLD
from api.dashboard.forms import NOT_OWN
from api.dashboard.routes import router
from api.dashboard.sessions import LINK_S, SESSION_S, issue_link
from api.dashboard.visitors import COOKIE
from shared.config.settings import Settings
from shared.ids import new_id
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, created_key, opened_with
from tests.support.dashboards import bearer, cookie_of, form_of, pressed, sent, signed_in, visitor

pytest_plugins = ["tests.support.api_fixtures"]


# -- signing in and out


@pytest.mark.parametrize(("role", "place"), [("admin", ""), ("service", "/payments"), (None, "/payments")])
async def test_a_token_signs_in_and_its_role_decides_what_is_seen(
    running_api: RunningApi, role: str | None, place: str
) -> None:
    browser = await signed_in(running_api, bearer(running_api, role))
    answer = await browser.get("")
    assert (answer.status_code == 200) == (role == "admin")
    if role != "admin":
        assert answer.headers["location"] == f"/dashboard{place}"
        assert (await browser.get("/stream")).status_code == 403


async def test_the_cookie_is_for_the_dashboard_only_and_no_script_and_no_other_site_sends_it(
    running_api: RunningApi,
) -> None:
    answer = await sent(visitor(running_api), bearer(running_api))
    cookie = cookie_of(answer)
    assert cookie["httponly"]
    assert (cookie["samesite"].lower(), cookie["path"], cookie["secure"]) == ("strict", "/dashboard", "")
    assert int(cookie["max-age"]) == SESSION_S
    # The API takes no cookie, whatever its path.
    client = running_api.client(headers={"Cookie": f"{COOKIE}={cookie.value}"})
    assert (await client.get("/payments")).status_code == 401


async def test_behind_tls_the_cookie_is_secure(running_api: RunningApi) -> None:
    browser = visitor(running_api)
    browser.headers["X-Forwarded-Proto"] = "https"
    form = (await browser.get("/sign-in")).text
    assert form
    answer = await browser.get("/sign-in")
    assert cookie_of(answer, "payments_dashboard_form")["secure"]


async def test_behind_a_proxy_that_says_nothing_the_cookie_is_secure_by_the_public_url(
    make_settings: Callable[..., Settings],
) -> None:
    async with opened_with(make_settings(public_url="https://pay.example")) as running_api:
        page = await visitor(running_api).get("/sign-in")
        assert cookie_of(page, "payments_dashboard_form")["secure"]


async def test_over_tls_the_cookie_is_secure(running_api: RunningApi) -> None:
    running_api.url = running_api.url.replace("http://", "https://")
    answer = await sent(visitor(running_api), bearer(running_api))
    assert cookie_of(answer)["secure"]


async def test_redis_keeps_the_principal_and_neither_token_nor_cookie(
    running_api: RunningApi, runtime: Runtime
) -> None:
    secret = bearer(running_api)
    browser = await signed_in(running_api, secret)
    redis = runtime.broker.arq_connection
    keys = [key async for key in redis.scan_iter("payments:dashboard:*")]
    [key] = keys
    payload = runtime.keyring.open_session((await redis.get(key) or b"").decode())
    assert payload is not None
    stored = key + payload
    assert b"root" in stored
    for hidden in (secret, browser.cookies[COOKIE]):
        assert hidden.encode() not in stored
    assert 0 < await redis.ttl(key) <= SESSION_S


async def test_a_session_ends_with_its_token(running_api: RunningApi, runtime: Runtime) -> None:
    await signed_in(running_api, bearer(running_api, exp=time() + 90))
    [key] = [key async for key in runtime.broker.arq_connection.scan_iter("payments:dashboard:session:*")]
    assert await runtime.broker.arq_connection.ttl(key) <= 90


async def test_no_session_is_as_long_as_a_token_that_is_good_for_days(
    running_api: RunningApi, runtime: Runtime
) -> None:
    await signed_in(running_api, bearer(running_api, exp=time() + 5 * SESSION_S))
    [key] = [key async for key in runtime.broker.arq_connection.scan_iter("payments:dashboard:session:*")]
    assert await runtime.broker.arq_connection.ttl(key) <= SESSION_S


async def test_a_session_ends_when_its_api_key_is_revoked(running_api: RunningApi, admin: httpx.AsyncClient) -> None:
    key = await created_key(admin, name="ops", role="admin")
    browser = await signed_in(running_api, key)
    assert "admin:ops" in (await browser.get("")).text
    [found] = [one for one in (await admin.get("/api-keys")).json()["api_keys"] if one["name"] == "ops"]
    (await admin.delete(f"/api-keys/{found['id']}")).raise_for_status()
    assert (await browser.get("")).headers["location"] == "/dashboard/sign-in"


async def test_after_the_sign_out_the_cookie_is_worth_nothing(running_api: RunningApi) -> None:
    browser = await signed_in(running_api, bearer(running_api))
    stolen = browser.cookies[COOKIE]
    answer = await pressed(browser, "", "/sign-out")
    assert answer.headers["location"] == "/dashboard/sign-in"
    assert COOKIE not in browser.cookies
    again = running_api.client(base="/dashboard", headers={"Cookie": f"{COOKIE}={stolen}"})
    assert (await again.get("")).status_code == 303


async def test_a_redis_that_has_forgotten_the_session_means_sign_in_again(
    running_api: RunningApi, runtime: Runtime
) -> None:
    browser = await signed_in(running_api, bearer(running_api))
    await runtime.broker.arq_connection.flushdb()
    answer = await browser.get("/payments", params={"status": "FAILED"})
    assert answer.headers["location"] == "/dashboard/sign-in?next=%2Fpayments%3Fstatus%3DFAILED"
    # A script is told, and is not led away.
    answer = await browser.get("", headers={"Sec-Fetch-Dest": "empty"})
    assert answer.status_code == 401


async def test_after_the_sign_in_the_wanted_page_is_shown_and_never_another_host(running_api: RunningApi) -> None:
    wanted = {
        "/payments?status=FAILED": "/dashboard/payments?status=FAILED",
        "//evil.test/x": "/dashboard//evil.test/x",
    }
    wanted |= {"https://evil.test": "/dashboard", "\\\\evil.test": "/dashboard"}
    for then, place in wanted.items():
        answer = await sent(visitor(running_api), bearer(running_api), next=then)
        assert answer.headers["location"] == place


# -- what is refused


async def test_what_is_no_valid_token_signs_nobody_in(running_api: RunningApi) -> None:
    browser = visitor(running_api)
    made_up = f"sk_sim_{'A' * 43}"
    for wrong in ("nonsense", bearer(running_api, exp=time() - 1), made_up, "é" * 9, "x" * 9000):
        answer = await sent(browser, wrong)
        assert answer.status_code in {401, 422}
        assert wrong not in answer.text
        assert COOKIE not in browser.cookies


@pytest.mark.parametrize("text", ["", " ", "\u00e9" * 9, "x" * 8193])
async def test_what_cannot_be_a_token_is_not_looked_at(running_api: RunningApi, text: str) -> None:
    assert (await sent(visitor(running_api), text)).status_code == 422


async def test_a_sign_in_of_another_site_signs_nobody_in(running_api: RunningApi) -> None:
    secret = bearer(running_api)
    for site in ("cross-site", "same-site"):
        browser = visitor(running_api)
        browser.headers["Sec-Fetch-Site"] = site
        assert (await sent(browser, secret)).status_code == 403
    # Neither the cookie nor the field: the two are equal.
    answer = await visitor(running_api).post("/sign-in", data={"form": "", "next": "", "token": secret})
    assert answer.status_code == 403


async def test_a_form_that_is_not_the_pages_own_does_nothing(running_api: RunningApi) -> None:
    browser = await signed_in(running_api, bearer(running_api))
    value = form_of(await browser.get(""))
    other = await signed_in(running_api, bearer(running_api))
    foreign = form_of(await other.get(""))
    for fields, headers in (
        ({}, {}),
        ({"form": "x"}, {}),
        ({"form": foreign}, {}),
        ({"form": value}, {"Sec-Fetch-Site": "cross-site"}),
        ({"form": value}, {"Sec-Fetch-Site": "same-site"}),
    ):
        answer = await browser.post("/sign-out", data={"x": "1", **fields}, headers=headers)
        assert answer.status_code == 403
        assert NOT_OWN in answer.text
    assert (await browser.get("")).status_code == 200
    # Nobody is signed in as somebody else by another site, either.
    stranger = visitor(running_api)
    answer = await stranger.post("/sign-in", data={"form": "x", "next": "", "token": bearer(running_api)})
    assert answer.status_code == 403
    answer = await sent(stranger, bearer(running_api), form="x")
    assert answer.status_code == 403


async def test_no_form_of_any_page_is_taken_from_another_session(running_api: RunningApi) -> None:
    posts = {
        found.path_format.format_map(defaultdict(new_id))
        for route in router.routes
        # A router of FastAPI is a private class, which has the routes with their prefix.
        for found in route.effective_route_contexts()  # type: ignore[attr-defined]
        if "POST" in (found.methods or ())
    }
    assert len(posts) > 10
    browser, other = [await signed_in(running_api, bearer(running_api)) for _ in range(2)]
    foreign = form_of(await other.get(""))
    for path in posts - {"/dashboard/sign-in"}:
        answer = await browser.post(path.removeprefix("/dashboard"), data={"form": foreign})
        assert (answer.status_code, NOT_OWN in answer.text) == (403, True), path


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"form=a&form=b", "application/x-www-form-urlencoded", 400),
        (b"form=%ff", "application/x-www-form-urlencoded", 400),
        (b"form=" + b"a" * 20_000, "application/x-www-form-urlencoded", 413),
        (b"{}", "application/json", 415),
    ],
)
async def test_a_body_that_is_no_form_is_refused_with_a_page(
    running_api: RunningApi, body: bytes, media_type: str, status: int
) -> None:
    answer = await visitor(running_api).post("/sign-in", content=body, headers={"Content-Type": media_type})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


# -- the link of `payments up`


async def test_a_link_signs_in_an_admin_once(running_api: RunningApi, runtime: Runtime) -> None:
    link = await issue_link(runtime.broker, runtime.keyring)
    redis = runtime.broker.arq_connection
    [key] = [key async for key in redis.scan_iter("payments:dashboard:link:*")]
    assert 0 < await redis.ttl(key) <= LINK_S
    assert link.encode() not in key
    browsers = [visitor(running_api) for _ in range(5)]
    answers = await asyncio.gather(*(browser.get("/sign-in", params={"link": link}) for browser in browsers))
    assert sorted(answer.status_code for answer in answers) == [303, 403, 403, 403, 403]
    [browser] = [browser for browser in browsers if COOKIE in browser.cookies]
    assert "admin:developer" in (await browser.get("")).text
    assert all(LINK_IS_OLD.split("`")[0] in answer.text for answer in answers if answer.status_code == 403)


@pytest.mark.parametrize("changes", [{"environment": "production"}, {"host": "::"}])
async def test_elsewhere_than_on_the_developers_machine_no_link_works(
    make_settings: Callable[..., Settings], changes: dict[str, str]
) -> None:
    async with opened_with(make_settings(dashboard="on", **changes)) as elsewhere:
        link = await issue_link(elsewhere.runtime.broker, elsewhere.runtime.keyring)
        assert (await visitor(elsewhere).get("/sign-in", params={"link": link})).status_code == 404


async def test_from_another_machine_no_link_works(make_settings: Callable[..., Settings]) -> None:
    async with opened_with(make_settings(trusted_proxies="127.0.0.1")) as running_api:
        link = await issue_link(running_api.runtime.broker, running_api.runtime.keyring)
        for address, status in (("192.0.2.1", 404), ("127.0.0.2", 303)):
            answer = await visitor(running_api).get(
                "/sign-in", params={"link": link}, headers={"X-Forwarded-For": address}
            )
            assert answer.status_code == status, address
