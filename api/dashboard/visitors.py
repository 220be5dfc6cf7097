"""Visitors: whoever is signed in and asks for a page, with the JSON API in their name; and pages instead of errors."""

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from fastapi.routing import APIRoute

from api.auth.principal import Principal, Role
from api.dashboard.done import mark_done, read_done
from api.dashboard.forms import read_own_form
from api.dashboard.json_api import JsonApi, Refused
from api.dashboard.pages import HEADERS, home, render
from api.dashboard.problem_pages import page_of
from api.dashboard.sessions import Session, Sessions
from api.dashboard.stream import Broadcast
from api.edge.rate_limits import RateLimits, limit_headers
from api.paths import DASHBOARD
from api.problem_handlers import as_problem
from api.problems import Code, Problem
from api.state import Api
from shared.errors import PaymentsError

COOKIE = "payments_dashboard"
SIGN_IN = "/sign-in"


class SignInNeeded(Exception):
    """Nobody is signed in, or the session has ended."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What the pages of one API process share."""

    sessions: Sessions
    overview: Broadcast


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever is signed in, in one request."""

    request: Request
    api: Api
    session: Session
    json: JsonApi

    @property
    def principal(self) -> Principal:
        """The principal whose rights hold."""
        return self.session.principal

    @property
    def is_admin(self) -> bool:
        """Whether the visitor may see what concerns the whole installation."""
        return self.principal.role == Role.ADMIN

    @property
    def done(self) -> str:
        """The word for what has led the visitor to this page, if `lead_to` made its address; else an empty text."""
        return read_done(self.session.form, self._path, self.request.query_params.get("done", ""))

    @property
    def _path(self) -> str:
        return str(self.request.scope["path"]).removeprefix(DASHBOARD)

    def page(
        self,
        template: str,
        shown: Mapping[str, Any] | None = None,
        *,
        refused: Refused | None = None,
        status: int = 200,
    ) -> Response:
        """Return a page for the visitor; with `refused` it says why, and has the status and the headers of that."""
        shown = {"fault": refused.sentence if refused else None, **(shown or {})}
        status = refused.answer.status if refused else status
        answer = render(self.request, template, shown, session=self.session, status=status)
        answer.headers.update(refused.headers if refused else {})
        return answer

    async def form(self) -> dict[str, str]:
        """Return the fields of the visitor's form. Raises Problem (403) if it is not a form of our own pages."""
        return await read_own_form(self.request, self.session.form)

    def lead_to(self, path: str, *, done: str | None = None, part: str = "") -> Response:
        """Return the answer to a form that was done: the browser shows the page at `path`, below the dashboard.

        That page finds the word `done` in its address. `part` is the id of an element there.
        """
        query = f"?{urlencode({'done': mark_done(self.session.form, path, done)})}" if done else ""
        place = f"{home(self.request.scope)}{path}{query}{f'#{part}' if part else ''}"
        return RedirectResponse(place, status_code=303, headers=HEADERS)

    def require_admin(self) -> None:
        """Raise Problem (403) if the visitor is no admin."""
        if not self.is_admin:
            raise Problem(Code.FORBIDDEN, "Only admins may see this page.")


def dashboard_of(request: Request) -> Dashboard:
    """Return the dashboard of the process."""
    found: Dashboard = request.app.state.dashboard
    return found


async def _visitor(request: Request) -> Visitor:
    api: Api = request.app.state.api
    _require_single(request)
    cookie = request.cookies.get(COOKIE)
    session = await dashboard_of(request).sessions.find(cookie) if cookie else None
    if session is None:
        raise SignInNeeded
    if api.rate_limits is not None:
        await _count(api.rate_limits, session.principal)
    return Visitor(request, api, session, JsonApi(request, session.principal))


type SignedIn = Annotated[Visitor, Depends(_visitor)]
type Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """A route whose errors are pages, and which leads whoever is not signed in to the sign-in."""

    def get_route_handler(self) -> Handler:
        """See APIRoute."""
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            try:
                return await handle(request)
            except SignInNeeded:
                return _sign_in_first(request)
            except Refused as refused:
                return page_of(request, Problem(Code(refused.code), refused.sentence, headers=refused.headers))
            except RequestValidationError:
                return page_of(request, Problem(Code.NOT_FOUND))
            except Problem as problem:
                return page_of(request, problem)
            except PaymentsError as error:
                return page_of(request, as_problem(error))

        return handle_page


def _sign_in_first(request: Request) -> Response:
    if request.headers.get("sec-fetch-dest") == "empty":
        # A script asks: it says so to its reader, who would lose the page by a redirect.
        return Response(status_code=401, headers=HEADERS)
    asked = request.url.path.removeprefix(DASHBOARD).rstrip("/") if request.method == "GET" else ""
    query = f"?{request.url.query}" if asked and request.url.query else ""
    then = f"?next={quote(asked + query, safe='')}" if asked else ""
    return RedirectResponse(home(request.scope) + SIGN_IN + then, status_code=303, headers=HEADERS)


def _require_single(request: Request) -> None:
    """Raise Problem (422) for a parameter that comes twice: the page would show one of them, as if it were both."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    if any(count > 1 for count in counts.values()):
        raise Problem(Code.VALIDATION_ERROR, "The address has a parameter twice. Leave one of them out.")


async def _count(limits: RateLimits, principal: Principal) -> None:
    """Count a page like a request with the token. Raises Problem (429) if the user is over the limit."""
    counted = limits.of_user(principal)
    if counted is None:
        return
    status = limits.counter.peek(*counted)
    if not status.is_over:
        status = await limits.counter.hit(*counted)
    if status.is_over:
        raise Problem(Code.RATE_LIMITED, headers=limit_headers([status]))
