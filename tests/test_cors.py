"""Cross-origin requests: which pages may use the API in a browser, and what they may read."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from api.edge.cors import EXPOSED_HEADERS, REQUEST_HEADERS
from api.main import create_app
from api.openapi.document import HEADERS, describe
from shared.config.settings import Settings, load_settings
from shared.errors import ConfigurationError
from shared.runtime import Runtime, open_runtime
from tests.support.api_client import RunningApi, accepted, added, opened, order, served

pytest_plugins = ["tests.support.api_fixtures"]

SHOP = "https://shop.example"
ORIGINS = (SHOP, "http://localhost:5173")
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
ALLOWED = "access-control-allow-origin"


@pytest.fixture
async def runtime(make_settings: Callable[..., Settings]) -> AsyncIterator[Runtime]:
    """An installation that two origins may use."""
    runtime = open_runtime(make_settings(cors_origins=ORIGINS, rate_limit_address="3/minute"))
    yield runtime
    await runtime.close()


def cors_headers(answer: httpx.Response) -> set[str]:
    return {name for name in answer.headers if name.startswith("access-control-")}


@pytest.mark.parametrize("origin", ORIGINS)
async def test_a_page_of_an_allowed_origin_may_read_the_answer_and_our_headers(
    running_api: RunningApi, origin: str
) -> None:
    answer = await running_api.user().get("/payments", headers={"Origin": origin})
    assert answer.headers[ALLOWED] == origin
    assert answer.headers["access-control-expose-headers"] == ", ".join(EXPOSED_HEADERS)
    assert "origin" in answer.headers["vary"].lower()
    # A page sends its token itself; the browser must add nothing.
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://shop.example.evil.example",
        "https://evil.example",
        "http://shop.example",
        "https://shop.example:8443",
        "https://SHOP.example",
        "https://shop.example/",
        "null",
        "*",
        "",
    ],
)
async def test_a_page_of_another_origin_may_not(running_api: RunningApi, origin: str) -> None:
    answer = await running_api.user().get("/payments", headers={"Origin": origin})
    assert answer.status_code == 200
    assert cors_headers(answer) == set()
    # A cache must not give this answer to a page that may read it.
    assert "origin" in answer.headers["vary"].lower()


async def test_two_origins_are_none(running_api: RunningApi) -> None:
    answer = await running_api.user().get("/payments", headers=[("Origin", SHOP), ("Origin", "https://evil.example")])
    assert cors_headers(answer) == set()


async def test_the_preference_and_the_origin_are_both_in_vary(running_api: RunningApi) -> None:
    user = running_api.user()
    payment = await accepted(user, order("pm_test_visa"))
    answer = await user.get(f"/payments/{payment['id']}", headers={"Origin": SHOP, "Prefer": "wait=1"})
    assert {part.strip() for part in answer.headers["vary"].split(",")} == {"Prefer", "Origin"}


async def test_a_preflight_request_needs_no_token_and_uses_up_no_limit(running_api: RunningApi) -> None:
    page = running_api.client(headers={"Origin": SHOP})
    answers = [await page.options("/payments", headers=PREFLIGHT) for _ in range(10)]
    assert {(each.status_code, each.content) for each in answers} == {(204, b"")}
    answer = answers[-1]
    assert answer.headers[ALLOWED] == SHOP
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD, POST, PATCH, DELETE"
    assert answer.headers["access-control-allow-headers"] == ", ".join(REQUEST_HEADERS)
    assert answer.headers["access-control-max-age"] == "600"
    assert answer.headers["x-correlation-id"]
    assert "access-control-allow-credentials" not in answer.headers
    assert (await running_api.user().get("/payments")).headers["ratelimit"].startswith('"address";r=2')


async def test_what_is_no_preflight_of_an_allowed_origin_is_an_ordinary_request(running_api: RunningApi) -> None:
    page = running_api.client()
    for headers in ({"Origin": "https://evil.example", **PREFLIGHT}, {"Origin": SHOP}):
        answer = await page.options("/payments", headers=headers)
        assert answer.status_code == 405


async def test_errors_may_be_read_too(running_api: RunningApi) -> None:
    page = running_api.client(headers={"Origin": SHOP})
    statuses = [(await page.get("/payments")).status_code, (await page.get("/nothing")).status_code]
    statuses.append((await page.put("/payments")).status_code)
    limited = await page.get("/payments")
    assert [*statuses, limited.status_code] == [401, 404, 405, 429]
    assert limited.headers[ALLOWED] == SHOP
    assert {"Retry-After", "RateLimit"} <= set(limited.headers["access-control-expose-headers"].split(", "))


async def test_nothing_outside_of_the_api_may_be_read(running_api: RunningApi) -> None:
    anybody = running_api.client(base="", headers={"Origin": SHOP})
    for path in ("/health", "/docs", "/openapi.json", "/api/payments", "/api/v1"):
        assert cors_headers(await anybody.get(path)) == set(), path
        assert cors_headers(await anybody.options(path, headers=PREFLIGHT)) == set(), path


async def test_what_the_edge_refuses_may_be_read_too(make_settings: Callable[..., Settings]) -> None:
    """413 comes from the protocol, and 503 from admission control before the token is looked at."""
    runtime = open_runtime(make_settings(cors_origins=(SHOP,), accept_queue_max=1))
    async with served(runtime) as api:
        page = api.user()
        page.headers["Origin"] = SHOP
        large = await page.post("/payments", content=b"x" * 70_000, headers={"Content-Type": "application/json"})
        assert (large.status_code, large.headers[ALLOWED]) == (413, SHOP)
        body = order(await added(page))
        answers = await asyncio.gather(*(page.post("/payments", json=body) for _ in range(40)))
        overloaded = [answer for answer in answers if answer.status_code == 503]
        assert overloaded
        assert {answer.headers[ALLOWED] for answer in answers} == {SHOP}
    await runtime.close()


async def test_by_default_no_origin_is_allowed(settings: Settings) -> None:
    runtime = open_runtime(settings)
    async with opened(runtime) as api:
        answer = await api.user().get("/payments", headers={"Origin": SHOP})
        assert cors_headers(answer) == set()
        assert "vary" not in answer.headers
        assert (await api.client().options("/payments", headers={"Origin": SHOP, **PREFLIGHT})).status_code == 405
    await runtime.close()


async def test_every_header_that_the_api_sends_or_takes_is_named(running_api: RunningApi) -> None:
    assert running_api.api is not None
    document = describe(create_app(running_api.api))
    assert set(EXPOSED_HEADERS) == {*HEADERS, "Allow"}
    taken = {
        parameter["name"]
        for operations in document["paths"].values()
        for operation in operations.values()
        for parameter in operation.get("parameters", [])
        # A page in a browser has no secret of a gateway.
        if parameter["in"] == "header" and not parameter["name"].startswith("webhook-")
    }
    assert set(REQUEST_HEADERS) == taken | {"Authorization", "Content-Type", "X-Correlation-ID"}


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "null",
        "shop.example",
        "https://*.shop.example",
        "https://shop.example/",
        "https://shop.example/path",
        "https://Shop.example",
        "https://user@shop.example",
        "https://shop.example:443",
        "http://shop.example:80",
        "https://shop.example:0",
        "https://shop.example:70000",
        "https://bücher.example",
        "ftp://shop.example",
        "https://shop.example https://b.example",
        f"{SHOP},*",
    ],
)
def test_a_bad_origin_stops_the_start(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^CORS_ORIGINS: "):
        load_settings(cors_origins=text)


@pytest.mark.parametrize("text", ["", " ", f"{SHOP}, http://[::1]:3000,https://xn--bcher-kva.example"])
def test_origins_are_separated_by_commas(text: str) -> None:
    expected = tuple(part.strip() for part in text.split(",") if part.strip())
    assert load_settings(cors_origins=text).cors_origins == expected
