"""A service under a prefix: ROOT_PATH, which a proxy strips, and PUBLIC_URL, with which links begin."""

from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from api.routes.docs import CONTENT_SECURITY_POLICY, FILES
from shared.config.settings import Settings, load_settings
from shared.errors import ConfigurationError
from shared.runtime import Runtime, open_runtime
from tests.support.api_client import RunningApi, card, opened, opened_with, order, problem

pytest_plugins = ["tests.support.api_fixtures"]


@pytest.fixture
async def runtime(make_settings: Callable[..., Settings]) -> AsyncIterator[Runtime]:
    """An installation behind a proxy that strips /shop/pay."""
    runtime = open_runtime(make_settings(root_path="/shop/pay"))
    yield runtime
    await runtime.close()


async def test_a_location_has_the_prefix(running_api: RunningApi) -> None:
    user, service = running_api.user(), running_api.service()
    method = await user.post("/payment-methods", json=card())
    payment = await user.post("/payments", json=order(method.json()["id"]))
    endpoint = await service.post("/webhook-endpoints", json={"name": "o", "url": "https://o.example"})
    for answer, path in ((method, "payment-methods"), (payment, "payments"), (endpoint, "webhook-endpoints")):
        assert answer.headers["location"] == f"/shop/pay/api/v1/{path}/{answer.json()['id']}"


async def test_a_location_at_the_platforms_paths_has_the_prefix(running_api: RunningApi) -> None:
    platform = httpx.AsyncClient(transport=running_api.transport, base_url=f"{running_api.url}/api")
    platform.headers = running_api.user().headers
    answer = await platform.post("/payments", json=order("pm_test_visa"))
    assert answer.headers["location"] == f"/shop/pay/api/payments/{answer.json()['id']}"


async def test_a_problem_names_the_path_that_the_client_asked_for(running_api: RunningApi) -> None:
    missing = problem(await running_api.user().get("/payments/none"), 404, "not_found")
    unknown = problem(await running_api.client(base="").get("/none"), 404, "not_found")
    assert (missing["instance"], unknown["instance"]) == ("/shop/pay/api/v1/payments/none", "/shop/pay/none")


async def test_the_root_leads_to_the_pages_for_people(running_api: RunningApi) -> None:
    anybody = running_api.client(base="")
    for method in ("GET", "HEAD"):
        answer = await anybody.request(method, "/")
        assert (answer.status_code, answer.headers["location"]) == (307, "/shop/pay/docs")
    problem(await anybody.post("/"), 405, "method_not_allowed")


async def test_the_document_says_where_the_service_is(running_api: RunningApi) -> None:
    document = (await running_api.client(base="").get("/openapi.json")).json()
    assert document["servers"] == [{"url": "/shop/pay"}]
    assert "/api/v1/payments" in document["paths"]


async def test_the_pages_for_people_load_nothing_from_elsewhere(running_api: RunningApi) -> None:
    anybody = running_api.client(base="")
    answers = {name: await anybody.get(f"/docs/{name}") for name in FILES}
    page = await anybody.get("/docs")
    for answer in (page, *answers.values()):
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "style=" not in answer.text
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "").replace("https://", "")
    # What the page names is below the page, whatever the prefix is.
    for name in ("viewer.css", "viewer.js", "icon.svg"):
        assert f'"docs/{name}"' in page.text
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    problem(await anybody.get("/docs/none"), 404, "not_found")
    problem(await anybody.get("/docs/viewer.html"), 404, "not_found")


async def test_the_page_of_the_api_leads_to_the_dashboard_if_that_is_on(
    make_settings: Callable[..., Settings],
) -> None:
    for dashboard in ("on", "off"):
        async with opened_with(make_settings(dashboard=dashboard)) as running_api:
            page = (await running_api.client(base="").get("/docs")).text
        # Relative, so it is below every prefix.
        assert ('href="dashboard"' in page) is (dashboard == "on")


# -- settings


LOOPBACK = ["/", "http://127.0.0.1:8009"]


@pytest.mark.parametrize(
    ("changes", "servers"),
    [
        ({}, LOOPBACK),
        ({"host": "localhost"}, LOOPBACK),
        ({"host": "::1"}, ["/", "http://[::1]:8009"]),
        ({"host": "0.0.0.0"}, ["/"]),  # noqa: S104
        ({"root_path": "/a/"}, ["/a"]),
        ({"root_path": "/"}, LOOPBACK),
        ({"public_url": "https://pay.example/a/", "root_path": "/a"}, ["https://pay.example/a"]),
        ({"public_url": "https://pay.example"}, ["https://pay.example"]),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_links_begin_with_what_the_operator_says_and_never_with_the_host_header(
    make_settings: Callable[..., Settings], changes: dict[str, object], servers: list[str]
) -> None:
    runtime = open_runtime(make_settings(port=8009, data_key="x" * 40, **changes))
    async with opened(runtime) as api:
        headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil"}
        document = await api.client(base="").get("/openapi.json", headers=headers)
        assert [server["url"] for server in document.json()["servers"]] == servers
        answer = await api.user().post("/payments", json=order("pm_test_visa"), headers=headers)
        assert answer.status_code == 202
        assert "evil" not in str(document.headers) + document.text + str(answer.headers)
    await runtime.close()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("root_path", "shop"),
        ("root_path", "//evil.example"),
        ("root_path", "/a//b"),
        ("root_path", "/a/../b"),
        ("root_path", "/a b"),
        ("root_path", "/a?x"),
        ("root_path", "/a\r\nSet-Cookie: x"),
        ("root_path", "https://pay.example/a"),
        ("public_url", "pay.example"),
        ("public_url", "ftp://pay.example"),
        ("public_url", "https://"),
        ("public_url", "https://user:secret@pay.example"),
        ("public_url", "https://pay.example?x=1"),
        ("public_url", "https://pay.example#x"),
        ("public_url", "https://pay.example:99999"),
        ("public_url", "https://pay.example/a b"),
        ("public_url", "https://pay.example\r\n"),
    ],
)
def test_a_bad_address_stops_the_start(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name.upper()}: ") as caught:
        load_settings(**{name: text})
    assert "secret" not in str(caught.value)
