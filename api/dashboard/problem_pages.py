"""The page of a problem: what is wrong, and what a person can do about it."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Scope

from api.dashboard.forms import ForeignForm
from api.dashboard.pages import render
from api.paths import ROOT_PATH
from api.problems import KINDS, Code, Problem, headers_of

# What a person can do about a problem. Every other code is answered with its own words.
ADVICE = {
    Code.NOT_FOUND: (
        "There is nothing here",
        "The address is wrong, or it leads to something that you may not see. Look for it by its id at the top.",
    ),
    Code.METHOD_NOT_ALLOWED: (
        "This address has no page",
        "It takes the form of another page. Go to that page, and send the form there.",
    ),
    Code.UNSUPPORTED_MEDIA_TYPE: (
        "This is not a form",
        "The body must be that of a form: application/x-www-form-urlencoded, without a content coding.",
    ),
    Code.RATE_LIMITED: ("Too many requests", "Wait for a minute, and load this page again."),
    Code.UNAVAILABLE: (
        "The service cannot answer right now",
        "The database or Redis does not answer. Payments that were accepted are not lost. Load this page again.",
    ),
}
FOREIGN_FORM = "This form is too old, or not ours"


def page_of(request: Request, problem: Problem) -> Response:
    """Return the page of a problem that a route of ours has raised."""
    heading = FOREIGN_FORM if isinstance(problem, ForeignForm) else None
    answer = _page(request, problem.code, problem.detail, request.scope["correlation_id"], heading=heading)
    answer.headers.update(headers_of(problem))
    return answer


def problem_page(scope: Scope, problem: Mapping[str, Any], *, root_path: str) -> Response:
    """Return the page in the place of a problem document, for what no route of ours has refused."""
    request = Request({**scope, ROOT_PATH: root_path})
    return _page(request, Code(problem["code"]), problem.get("detail"), problem["correlation_id"])


def _page(
    request: Request, code: Code, detail: str | None, correlation_id: str, *, heading: str | None = None
) -> Response:
    kind = KINDS[code]
    own_heading, advice = ADVICE.get(code, (kind.title, ""))
    shown = {
        "heading": heading or own_heading,
        "text": detail or advice or "Go back, and try again.",
        "correlation_id": correlation_id,
    }
    return render(request, "problem.html", shown, status=kind.status)
