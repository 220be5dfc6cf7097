"""Paging by cursor: a page of a list, and the opaque cursor of the next page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol
from uuid import UUID

import orjson
from fastapi import Query
from pydantic import BeforeValidator

from api.problems import invalid
from shared.keyring import Keyring

LIMIT_MAX = 100
CURSOR_CHARS_MAX = 2000


def _of_digits(text: Any) -> Any:
    """Refuse the other spellings of an integer that pydantic takes, such as `1.0`, `+1` and `1_0`."""
    if isinstance(text, str) and not (text.isascii() and text.isdigit()):
        raise ValueError("must be an integer in digits")
    return text


type Limit = Annotated[
    int,
    # Before the validator, or else pydantic describes the bounds by names that JSON Schema does not know.
    Query(description="The largest number of objects on a page.", ge=1, le=LIMIT_MAX),
    BeforeValidator(_of_digits),
]
type Cursor = Annotated[
    str | None,
    Query(
        description="`next_cursor` of the previous page. It carries the filters of that page.",
        max_length=CURSOR_CHARS_MAX,
    ),
]


class _HasId(Protocol):
    @property
    def id(self) -> UUID: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a list: at most `limit` objects that match `filters` and come after the object `last`.

    `last` is the last object of the page before, None on the first page. `owner` names the list and its principal: a
    cursor is valid for no other one.
    """

    keyring: Keyring
    owner: str
    limit: int
    filters: Mapping[str, Any]
    last: UUID | None

    @property
    def fetch_limit(self) -> int:
        """The page size plus one: the extra object shows that there is a next page."""
        return self.limit + 1

    def to_json[T: _HasId](
        self, name: str, found: Sequence[T], one_to_json: Callable[[T], Any], *, has_more: bool = False
    ) -> dict[str, Any]:
        """Return the content of the response, with the objects of the page under `name`.

        There is a next page if `found` has an extra object, or if `has_more` says so.
        """
        shown = found[: self.limit]
        has_more = has_more or len(found) > self.limit
        return {
            name: [one_to_json(one) for one in shown],
            "limit": self.limit,
            "next_cursor": self._cursor_after(shown[-1].id) if has_more else None,
        }

    def _cursor_after(self, last: UUID) -> str:
        return self.keyring.seal_cursor(orjson.dumps({"last": str(last), "filters": self.filters, "owner": self.owner}))


def open_page(keyring: Keyring, cursor: str | None, filters: Mapping[str, Any], *, limit: int, owner: str) -> Page:
    """Return the page that a request asks for. `filters` are those of the request; without any, the cursor's apply.

    Raises Problem (422) for a cursor of another list or principal, or with other filters.
    """
    if cursor is None:
        return Page(keyring=keyring, owner=owner, limit=limit, filters=filters, last=None)
    payload = keyring.open_cursor(cursor)
    content = orjson.loads(payload) if payload else {}
    if content.get("owner") != owner:
        raise invalid("/query/cursor", "is not a cursor of this list")
    if filters and filters != content["filters"]:
        raise invalid("/query/cursor", "belongs to a list with other filters")
    return Page(keyring=keyring, owner=owner, limit=limit, filters=content["filters"], last=UUID(content["last"]))
