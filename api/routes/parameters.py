"""What several operations read from a request: the API's state, ids in paths and preferences."""

import re
from dataclasses import dataclass
from time import monotonic
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Depends, Header, Query, Request

from api.edge.disconnect import Disconnect, disconnect_of
from api.paths import shown_path
from api.problems import found_or_404
from api.state import Api
from shared.ids import USER_ID, parse_id
from shared.payments.payment import Payment

# One preference of a Prefer header (RFC 7240, 2): commas inside quotes do not end it.
PREFERENCE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
# The preference `wait`, whose parameters are ignored.
WAIT = re.compile(r'\s*wait\s*=\s*(?:"(\d{1,9})"|(\d{1,9}))\s*(?:;.*)?', re.IGNORECASE | re.DOTALL)
# Seconds; the platform's gateway ends a request after 30 s.
WAIT_MAX_S = 25


async def _api(request: Request) -> Api:
    api: Api = request.app.state.api
    return api


# Headers are parameters of the routes and not dependencies: a dependency takes a twentieth of a request's time.
type ApiState = Annotated[Api, Depends(_api)]
type Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description="`wait=N` (RFC 7240): hold the answer until the payment has ended, for at most "
        f"N seconds (1-{WAIT_MAX_S}).",
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
    """The preference (`Prefer: wait=N`) that the answer is held until the payment has ended, for at most `seconds`.

    `asked_at` is a moment of the monotonic clock. The wait ends early if the client disconnects.
    """

    seconds: int
    asked_at: float
    disconnect: Disconnect

    def headers(self, payment: Payment) -> dict[str, str]:
        """Return the headers of an answer with `payment`.

        They have Preference-Applied if the preference was honoured: the payment has ended, or the time is up.
        """
        is_honoured = payment.status.is_settled or monotonic() - self.asked_at >= self.seconds
        return {"Vary": "Prefer"} | ({"Preference-Applied": f"wait={self.seconds}"} if is_honoured else {})


def parse_prefer_wait(prefer: str | None, request: Request) -> Wait | None:
    """Return the wait that a Prefer header asks for, clamped to 1-25 s; None if it asks for none."""
    if prefer is None:
        return None
    for preference in PREFERENCE.findall(prefer):
        # The first of several counts (RFC 7240, 2).
        if found := WAIT.fullmatch(preference):
            seconds = min(max(int(found[1] or found[2]), 1), WAIT_MAX_S)
            return Wait(seconds, monotonic(), disconnect_of(request.scope))
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
