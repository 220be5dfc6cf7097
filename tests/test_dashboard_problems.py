"""What is refused below /dashboard is a page, whichever part of the API refused it, and its words are true."""

import html
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.dashboard.forms import NOT_OWN
from api.edge.problem_pages import ProblemPages, ProblemPagesMiddleware
from api.problems import PROBLEM_TYPE
from shared.config.settings import Settings
from shared.errors import DatabaseUnavailable
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, opened, opened_with
from tests.support.dashboards import bearer, form_of, pressed, sent, signed_in, visitor
from tests.support.scripted_databases import Scripted

pytest_plugins = ["tests.support.api_fixtures"]

NOBODY = "01a22091-c2a7-77ae-9f71-cd99da4190aa"


def heading_of(answer: httpx.Response, status: int) -> str:
    """The heading of a page with this status, and its text, as people read them."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "content-security-policy" in answer.headers
    assert int(answer.headers["content-length"]) == len(answer.content)
    return html.unescape(answer.text.partition("<h1>")[2].partition("</h1>")[0])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", f"/payments/{NOBODY}/refund", 405), ("GET", "/system/verify", 405), ("GET", "/simulator/rules", 405),
     ("POST", "/payments", 405), ("DELETE", "", 405), ("PUT", f"/webhooks/{NOBODY}", 405), ("POST", "/nothing", 404),
     ("GET", "/payments/", 404), ("GET", "/system/", 404), ("GET", "/nothing", 404), ("GET", "/a/b/c/d", 404),
     ("GET", "/static/x", 404)],
)  # fmt: skip
@pytest.mark.parametrize("is_signed_in", [True, False])
async def test_every_address_below_the_dashboard_answers_with_a_page(
    running_api: RunningApi, method: str, path: str, status: int, *, is_signed_in: bool
) -> None:
    browser = await signed_in(running_api, bearer(running_api)) if is_signed_in else visitor(running_api)
    answer = await browser.request(method, path)
    heading = heading_of(answer, status)
    assert heading == {404: "There is nothing here", 405: "This address has no page"}[status]
    assert ("allow" in answer.headers) == (status == 405)
    assert answer.headers["x-correlation-id"] in answer.text


async def test_the_api_answers_with_problem_documents_all_the_same(running_api: RunningApi) -> None:
    for path in ("/dashboards", "/dashboardx/y"):
        answer = await running_api.client(base="").get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_the_address_of_the_dashboard_itself_answers_with_a_page(running_api: RunningApi) -> None:
    answer = await running_api.client(base="").delete("/dashboard")
    assert heading_of(answer, 405) == "This address has no page"


async def test_a_problem_that_is_sent_in_parts_is_one_page() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-type", PROBLEM_TYPE.encode())]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"code": ', "more_body": True})
        await send({"type": "http.response.body", "body": b'"not_found"}'})

    made = ProblemPages(("/page",), lambda _, problem: Response(problem["code"]))
    pages = ProblemPagesMiddleware(app, made)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(pages), base_url="http://payments.test") as client:
        assert (await client.get("/page")).text == "not_found"


async def test_too_many_watching_pages_are_told_so(running_api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await signed_in(running_api, bearer(running_api))
    assert (await browser.head("/stream")).status_code == 200
    monkeypatch.setattr("api.dashboard.stream.VIEWERS_MAX", 0)
    assert (await browser.head("/stream")).status_code == 503


async def test_below_a_prefix_the_page_of_a_problem_links_below_it(make_settings: Callable[..., Settings]) -> None:
    async with opened_with(make_settings(root_path="/shop")) as running_api:
        page = await visitor(running_api).get("/a/b")
        assert heading_of(page, 404)
        assert 'href="/shop/dashboard"' in page.text
        assert '="/dashboard' not in page.text


async def test_a_form_that_is_too_old_says_so_and_what_to_do(running_api: RunningApi) -> None:
    browser = await signed_in(running_api, bearer(running_api))
    answer = await browser.post("/simulator", data={"form": "of another session"})
    assert heading_of(answer, 403) == "This form is too old, or not ours"
    assert NOT_OWN in answer.text
    assert "load the page again" in answer.text


async def test_every_form_says_in_which_media_type_it_is_read(running_api: RunningApi) -> None:
    browser = await signed_in(running_api, bearer(running_api))
    paths = ["/sign-in", "/sign-out", "/simulator", "/simulator/rules", "/simulator/rules/preset", "/system/verify"]
    paths += ["/simulator/clock", f"/payments/{NOBODY}/refund", f"/deliveries/{NOBODY}/resend"]
    for path in paths:
        answer = await browser.post(path, json={"form": form_of(await browser.get("/simulator"))})
        assert heading_of(answer, 415) == "This is not a form", path
        assert "application/x-www-form-urlencoded" in answer.text
        assert "application/json" not in answer.text


@pytest.mark.parametrize("path", ["/payments?status=FAILED&status=", "/find?q=a&q=b", f"/webhooks/{NOBODY}?x=1&x=1"])
async def test_a_parameter_that_comes_twice_is_refused(running_api: RunningApi, path: str) -> None:
    answer = await (await signed_in(running_api, bearer(running_api))).get(path)
    assert heading_of(answer, 422)
    assert "twice" in answer.text


@pytest.mark.parametrize(
    "moment", ["2026-11-28T11:00-02:00", "2026-11-28T11:00:00z", "2026-11-28T11:00:00Z", "2026-11-28T11:00+01:00",
               "2026-11-28T11:00"]
)  # fmt: skip
async def test_the_list_takes_moments_of_every_zone(running_api: RunningApi, moment: str) -> None:
    browser = await signed_in(running_api, bearer(running_api))
    for name in ("created_after", "created_before"):
        assert (await browser.get("/payments", params={name: moment})).status_code == 200


async def test_without_simulation_nothing_is_offered_that_would_be_refused(
    make_settings: Callable[..., Settings],
) -> None:
    async with opened_with(make_settings(simulation="off")) as running_api:
        browser = await signed_in(running_api, bearer(running_api))
        page = await browser.get("/simulator")
        assert "Simulation is off here" in page.text
        assert 'action="/dashboard/simulator' not in page.text
        answer = await running_api.user().get("/simulation/clock")
        assert answer.json()["detail"] == "The clock of the simulation needs SIMULATION=on."
        refused = await pressed(browser, "/simulator", "/simulator/clock", count="1", unit="hours")
        assert refused.status_code == 403


# -- a service that cannot answer


class Busy(Scripted):
    """A database that has no connection for anybody once `is_busy`."""

    is_busy = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        self._require_room()
        async with super().transaction() as connection:
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        self._require_room()
        async with super().read() as connection:
            yield connection

    def _require_room(self) -> None:
        if self.is_busy:
            raise DatabaseUnavailable("busy")


@pytest.fixture
async def busy(runtime: Runtime) -> AsyncIterator[tuple[RunningApi, Busy]]:
    """A running API whose database is busy when it is told to be."""
    database = Busy(runtime.database)
    async with opened(replace(runtime, database=database)) as running_api:
        yield running_api, database


def require_later(answer: httpx.Response, status: int = 503) -> None:
    """It is a page that says when to come back."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert int(answer.headers["retry-after"]) >= 1


async def test_every_page_of_a_busy_service_says_when_to_come_back(busy: tuple[RunningApi, Busy]) -> None:
    running_api, database = busy
    browser = await signed_in(running_api, bearer(running_api))
    form = form_of(await browser.get("/simulator"))
    database.is_busy = True
    pages = ["/payments", "/payments?status=FAILED", f"/payments/{NOBODY}", "/webhooks", f"/webhooks/{NOBODY}"]
    pages += [f"/deliveries/{NOBODY}", "/find?q=order-1", f"/find?q={NOBODY}", "/simulator", "/system"]
    for path in pages:
        require_later(await browser.get(path))
    forms = {
        "/simulator": {
            "method": "pm_test_visa",
            "amount": "1",
            "currency": "USD",
            "count": "1",
            "capture": "automatic",
        },
        "/simulator/rules": {"name": "a", "outcome": "insufficient_funds"},
        "/simulator/rules/preset": {"preset": "issuer-down", "minutes": "1"},
        "/simulator/rules/delete": {"all": "1"},
        "/simulator/clock": {"count": "1", "unit": "hours"},
        f"/payments/{NOBODY}/refund": {"amount": ""},
        f"/payments/{NOBODY}/cancel": {},
        f"/webhooks/{NOBODY}/disable": {},
        f"/deliveries/{NOBODY}/resend": {},
    }
    for path, fields in forms.items():
        require_later(await browser.post(path, data={"form": form, **fields}))


async def test_a_form_that_is_refused_for_now_says_so_on_its_own_page(busy: tuple[RunningApi, Busy]) -> None:
    """Only the transaction fails, so the page of the form is shown."""
    running_api, database = busy
    browser = await signed_in(running_api, bearer(running_api))
    form = form_of(await browser.get("/simulator"))
    for path, fields in (
        ("/simulator/rules", {"name": "a", "outcome": "insufficient_funds"}),
        ("/simulator/clock", {"count": "1", "unit": "hours"}),
        ("/simulator/rules/delete", {"all": "1"}),
    ):
        database.script = ["unavailable"]
        answer = await browser.post(path, data={"form": form, **fields})
        assert database.script == []
        require_later(answer)
        assert 'role="alert"' in answer.text
        assert "<h1>Simulator</h1>" in answer.text


async def test_redis_that_knows_no_session_says_when_to_come_back(running_api: RunningApi, runtime: Runtime) -> None:
    browser = await signed_in(running_api, bearer(running_api))
    await runtime.broker.arq_connection.client_pause(3000)
    require_later(await browser.get("/payments"))


async def test_who_asks_too_often_is_told_when_to_come_back(make_settings: Callable[..., Settings]) -> None:
    async with opened_with(make_settings(rate_limit_user="1/minute")) as running_api:
        browser = await signed_in(running_api, bearer(running_api, None, "7"))
        assert (await browser.get("/payments")).status_code == 200
        refused = await browser.get("/payments")
        require_later(refused, 429)
        assert "ratelimit" in refused.headers


async def test_a_token_that_is_refused_is_asked_for_again(running_api: RunningApi) -> None:
    answer = await sent(visitor(running_api), "nonsense")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
