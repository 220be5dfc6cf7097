"""The OpenAPI document, and the pages for people: `/docs` shows it, and `/` leads to `/docs`.

The viewer is a page of our own, so it loads nothing from another host and needs no internet. Its files are in
`api/viewer`. Links in them are relative, so they work under every prefix.
"""

from importlib.resources import files
from typing import NamedTuple

import orjson
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from api.paths import ROOT_PATH
from api.problems import Code, Problem
from api.routes.parameters import ApiState

router = APIRouter(include_in_schema=False)

DOCS = "/docs"
# Only the viewer's own files and its requests to this API: nothing inline, no other host, no frame around it.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # The files belong to this version of the service.
    "Cache-Control": "no-cache",
}


class File(NamedTuple):
    """A file of the viewer."""

    media_type: str
    content: bytes


def _file(name: str, media_type: str) -> File:
    return File(media_type, files("api").joinpath("viewer", name).read_bytes())


PAGE = _file("viewer.html", "text/html")
LINK = b' \xc2\xb7 <a href="dashboard">Dashboard</a>'
PAGE_WITH_DASHBOARD = PAGE._replace(content=PAGE.content.replace(b"<!-- dashboard -->", LINK))
FILES = {
    "viewer.css": _file("viewer.css", "text/css"),
    "viewer.js": _file("viewer.js", "text/javascript"),
    "schema.js": _file("schema.js", "text/javascript"),
    "icon.svg": _file("icon.svg", "image/svg+xml"),
}


@router.get("/")
async def get_root(request: Request) -> Response:
    """Lead to the page for people."""
    return RedirectResponse(request.scope.get(ROOT_PATH, "") + DOCS, status_code=307)


@router.get("/openapi.json")
async def get_openapi_document(request: Request) -> Response:
    """Return the OpenAPI document. Everybody may ask for it, so it is written once and its bytes are shared."""
    app: FastAPI = request.app
    if app.state.openapi_json is None:
        app.state.openapi_json = orjson.dumps(app.openapi())
    return Response(app.state.openapi_json, media_type="application/json")


@router.get(DOCS)
async def get_docs(api: ApiState) -> Response:
    """Return the viewer of the OpenAPI document, with a link to the dashboard where that is on."""
    return _response(PAGE_WITH_DASHBOARD if api.runtime.settings.is_dashboard_on else PAGE)


@router.get(f"{DOCS}/{{name}}")
async def get_docs_file(name: str) -> Response:
    """Return a file of the viewer."""
    if name not in FILES:
        raise Problem(Code.NOT_FOUND)
    return _response(FILES[name])


def _response(file: File) -> Response:
    return Response(file.content, headers=HEADERS, media_type=file.media_type)
