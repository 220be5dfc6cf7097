"""Idempotent POSTs: the work and its idempotency key are committed in one transaction.

`POST /payments` does the same in group commits; see `shared.payments.accept`.
"""

import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import Header
from pydantic import AfterValidator
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth.principal import Principal
from api.state import Api
from shared.idempotency import KeyRequest, bind, replayed
from shared.keyring import Keyring

REPLAYED_HEADER = {"Idempotent-Replayed": "true"}
IDEMPOTENCY_KEY = re.compile(r'"([\x21-\x7e]{1,255})"|(?!")([\x21-\x7e]{1,255})')

type Work[T] = Callable[[AsyncConnection, datetime, UUID | None], Awaitable[T]]
"""Does the work. For a repeat it gets the id of the object of the first request, and returns that as it is now."""


def _unquoted(key: str | None) -> str | None:
    if key is None:
        return None
    found = IDEMPOTENCY_KEY.fullmatch(key)
    if found is None:
        raise ValueError("must be 1-255 visible ASCII characters")
    return found[1] or found[2]


type IdempotencyKey = Annotated[
    str | None,
    AfterValidator(_unquoted),
    Header(
        alias="Idempotency-Key",
        description="1-255 visible ASCII characters. A request that is repeated with the same key is done only once.",
        # 257 and not 255, because the key may be in quotes.
        json_schema_extra={"pattern": "^[!-~]+$", "minLength": 1, "maxLength": 257},
    ),
]


def key_request_of(
    keyring: Keyring, principal: Principal, key: str | None, *, operation: str, content: Any, object_id: UUID
) -> KeyRequest | None:
    """Return the key and the fingerprint of a request; None without a key.

    Two requests with one key are the same if `operation` and `content` are equal.
    """
    if key is None:
        return None
    return KeyRequest(
        scope=f"{principal.actor} {operation}",
        key=key,
        fingerprint=keyring.fingerprint(operation, orjson.dumps(content, option=orjson.OPT_SORT_KEYS)),
        object_id=object_id,
    )


async def run_idempotent[T](api: Api, key_request: KeyRequest | None, work: Work[T]) -> tuple[T, bool]:
    """Return the result of `work`, which is done at most once per key, and whether the request was a repeat.

    An error of `work` rolls back the key, too. A transaction that lost a conflict with another one is tried once more.
    Raises IdempotencyKeyReused if the key was used for another request, and Overloaded at once, with nothing done, if
    too many transactions are in progress.
    """

    async def keyed_work(connection: AsyncConnection, now: datetime) -> tuple[T, bool]:
        repeated = None
        if key_request is not None:
            holders = await bind(connection, [key_request], now=now)
            repeated = replayed(key_request, holders[key_request.name])
        return await work(connection, now, repeated), repeated is not None

    return await api.in_transaction(keyed_work)
