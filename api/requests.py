"""What several operations read from a request the same way: headers, ids, cursors, and how a POST is repeated."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import Depends, Header, Request
from pydantic import AfterValidator

from api.auth import Principal
from api.errors import Code, Problem, invalid
from api.state import Api
from shared.addresses import check_callback_url
from shared.documents import Payment
from shared.errors import UrlRefused
from shared.idempotency import Claim
from shared.ids import parse_id
from shared.vault import Vault

IDEMPOTENCY_KEY = re.compile(r'"([\x21-\x7e]{1,255})"|(?!"")([\x21-\x7e]{1,255})')
WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?=$|[,;\s])", re.IGNORECASE)
WAIT_MAX_S = 25  # the platform's gateway cuts at 30 s


@dataclass(frozen=True, slots=True)
class Wait:
    """A client's wish to have the answer held until its payment ends."""

    seconds: int
    asked_at: float

    def headers(self, payment: Payment) -> dict[str, str]:
        """Those of an answer with `payment`: the wish was granted if the payment has ended or the time is up."""
        is_granted = payment.status.is_terminal or monotonic() - self.asked_at >= self.seconds
        return {"Vary": "Prefer"} | ({"Preference-Applied": f"wait={self.seconds}"} if is_granted else {})


async def _api(request: Request) -> Api:
    api: Api = request.app.state.api
    return api


def _unquoted(key: str | None) -> str | None:
    if key is None:
        return None
    found = IDEMPOTENCY_KEY.fullmatch(key)
    if found is None:
        raise ValueError("must be 1-255 visible ASCII characters")
    return found[1] or found[2]


def wished_wait(prefer: str | None) -> Wait | None:
    """How long the client would wait, clamped to what we allow; None without a sensible wish."""
    found = WAIT.search(prefer) if prefer else None
    return Wait(min(max(int(found[1]), 1), WAIT_MAX_S), monotonic()) if found else None


# Headers are parameters of the routes and no dependencies: each dependency costs a twentieth of a request.
type ApiState = Annotated[Api, Depends(_api)]
type IdempotencyKey = Annotated[
    str | None,
    AfterValidator(_unquoted),
    Header(
        alias="Idempotency-Key",
        description="Repeat a request with the same key and it is done once. 1-255 visible ASCII characters.",
        json_schema_extra={"pattern": "^[!-~]+$", "minLength": 1, "maxLength": 257},  # with quotes around it
    ),
]
type Prefer = Annotated[
    str | None,
    Header(description="`wait=N` (RFC 7240): hold the answer until the payment ends or N seconds passed, 1-25."),
]


def existing_id(text: str) -> UUID:
    """The id in a path; what is no id names nothing: 404."""
    found = parse_id(text)
    if found is None:
        raise Problem(Code.NOT_FOUND)
    return found


def location(request: Request, object_id: UUID) -> str:
    """Where to find what a POST to a collection has made: below the address that was posted to, whichever mount."""
    return f"{request.scope['path']}/{object_id}"


def claim_of(
    vault: Vault, principal: Principal, key: str | None, *, operation: str, content: Any, object_id: UUID
) -> Claim | None:
    """The claim of a request with an idempotency key; `content` is what makes two requests the same."""
    if key is None:
        return None
    return Claim(
        scope=f"{principal.actor} {operation}",
        key=key,
        fingerprint=vault.fingerprint(operation, orjson.dumps(content, option=orjson.OPT_SORT_KEYS)),
        object_id=object_id,
    )


def check_receiver(api: Api, pointer: str, url: str) -> None:
    """Refuse a URL that no webhook may be sent to, as far as its text tells. Raises Problem(callback_url_refused)."""
    try:
        check_callback_url(url, api.runtime.address_policy)
    except UrlRefused as error:
        refusal = {"pointer": pointer, "detail": str(error)}
        raise Problem(Code.CALLBACK_URL_REFUSED, errors=[refusal]) from error


def seal_cursor(vault: Vault, last: UUID, filters: Mapping[str, Any], *, owner: str) -> str:
    """A cursor behind `last` that only works for its owner, and brings its filters along."""
    return vault.seal_cursor(orjson.dumps({"last": str(last), "filters": filters, "owner": owner}))


def open_cursor(vault: Vault, text: str, *, owner: str) -> tuple[UUID, dict[str, Any]]:
    """Where a cursor stands, and its filters. 422 for a foreign one."""
    payload = vault.open_cursor(text)
    content = orjson.loads(payload) if payload else {}
    if content.get("owner") != owner:
        raise invalid("/query/cursor", "is not a cursor of this list")
    return UUID(content["last"]), content["filters"]
