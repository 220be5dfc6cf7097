"""What several operations read from a request: the API's state, ids in paths and preferences."""

import re
from dataclasses import dataclass
from time import monotonic
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Depends, Header, Query, Request

from api.edge.disconnect import Disconnect, disconnect_of
from api.long_poll import Versioned
from api.paths import PAYMENTS, PLATFORM_PREFIX, PREFIX, REFUNDS, shown_path
from api.problems import found_or_404
from api.state import Api
from shared.ids import USER_ID, parse_id

# One preference of a Prefer header (RFC 7240, 2): commas inside quotes do not end it.
PREFERENCE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
# The preference `wait`, whose parameters are ignored.
WAIT = re.compile(r'\s*wait\s*=\s*(?:"(\d{1,9})"|(\d{1,9}))\s*(?:;.*)?', re.IGNORECASE | re.DOTALL)
# Seconds; the platform's gateway ends a request after 30 s.
WAIT_MAX_S = 25
# What an If-None-Match header has that matches every version.
ANY_ETAG = "*"


async def _api(request: Request) -> Api:
    api: Api = request.app.state.api
    return api


# Headers are parameters of the routes and not dependencies: a dependency takes a twentieth of a request's time.
type ApiState = Annotated[Api, Depends(_api)]
type Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description="`wait=N` (RFC 7240): hold the answer until the object has ended, or waits for its customer or a "
        f"capture, for at most N seconds (1-{WAIT_MAX_S}; more counts as {WAIT_MAX_S}, and 0 does not wait).",
    ),
]
type NamedUser = Annotated[
    str | None,
    Query(description="The user whose objects are meant. Only services and admins may name one.", pattern=USER_ID),
]
type IfNoneMatch = Annotated[
    str | None,
    Header(
        alias="If-None-Match", description="The ETag that the client has. If it is still current, the answer is 304."
    ),
]


@dataclass(frozen=True, slots=True)
class Wait:
    """The preference (`Prefer: wait=N`) that the answer is held until the object is settled, for at most `seconds`.

    With `known`, an ETag or several (If-None-Match), the answer is held until the object is settled and has another
    ETag. `asked_at` is a moment of the monotonic clock. The wait ends early if the client disconnects.
    """

    seconds: int
    asked_at: float
    disconnect: Disconnect
    known: str | None = None

    def is_over(self, found: Versioned) -> bool:
        """Return whether the object is what the answer was held for."""
        return found.is_settled and not (self.known and is_current(self.known, found))

    def headers(self, found: Versioned) -> dict[str, str]:
        """Return the headers of an answer with the object.

        They have Preference-Applied if the preference was honoured: the object is settled, or the time is up.
        """
        is_honoured = self.is_over(found) or monotonic() - self.asked_at >= self.seconds
        return {"Vary": "Prefer"} | ({"Preference-Applied": f"wait={self.seconds}"} if is_honoured else {})


def etag_of(found: Versioned) -> str:
    """Return the ETag of an object: its sequence, which grows by one with every entry in its history."""
    return f'"{found.sequence}"'


def is_current(if_none_match: str, found: Versioned) -> bool:
    """Return whether an If-None-Match header has the ETag of the object (RFC 9110, 13.1.2)."""
    # Apache's mod_deflate sends `"3-gzip"` for the `"3"` that it has compressed.
    given = {candidate.strip(" \t").removeprefix("W/").replace('-gzip"', '"') for candidate in if_none_match.split(",")}
    return bool(given & {etag_of(found), ANY_ETAG})


def parse_prefer_wait(prefer: str | None, request: Request, *, if_none_match: str | None = None) -> Wait | None:
    """Return the wait that a Prefer header asks for, at most 25 s; None if it asks for none, or for 0 s.

    With `if_none_match` the wait is for another version than the client has. `*` names no version.
    """
    if prefer is None:
        return None
    for preference in PREFERENCE.findall(prefer):
        # The first of several counts (RFC 7240, 2).
        if found := WAIT.fullmatch(preference):
            seconds = min(int(found[1] or found[2]), WAIT_MAX_S)
            if seconds == 0:
                return None
            known = None if if_none_match == ANY_ETAG else if_none_match
            return Wait(seconds, monotonic(), disconnect_of(request.scope), known)
    return None


def parse_path_id(text: str) -> UUID:
    """Return the id in a path. Raises Problem (404) for a text that is not an id, because no object can have it."""
    return found_or_404(parse_id(text))


def location(request: Request, object_id: UUID, *, user_id: str | None = None) -> str:
    """Return the path of the object that a POST to a collection has created: it is below the path of the POST.

    If the request named a user, the GET of the object must name the user as well.
    """
    query = f"?{urlencode({'user_id': user_id})}" if user_id is not None else ""
    return f"{shown_path(request.scope)}/{object_id}{query}"


def refund_location(request: Request, refund_id: UUID) -> str:
    """Return the path of a refund that a POST below a payment has created, with the prefix that the client came by."""
    path: str = request.scope["path"]
    at = PREFIX if path.startswith(f"{PREFIX}/") else PLATFORM_PREFIX + PAYMENTS
    return f"{shown_path(request.scope).removesuffix(path)}{at}{REFUNDS}/{refund_id}"
