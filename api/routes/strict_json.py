"""Reading a JSON body, without the guesses of a lenient parser.

RFC 8259 leaves it to a parser what it does with a member that comes twice. Two readers of one body, such as a gateway
and this service, must not see two different amounts, so such a body is refused.
"""

import json
from collections import Counter
from email.message import Message
from typing import Any, NoReturn

from starlette.datastructures import Headers

from api.faults import member_name
from api.problems import Code, Problem

NOT_JSON = "The body is not valid JSON."
# Characters of a Content-Type: the time that Python needs to parse one grows with the square of its length.
CONTENT_TYPE_CHARS_MAX = 256


# What almost every client sends.
PLAIN_JSON = "application/json"


def check_coding(headers: Headers) -> None:
    """Refuse a body that is compressed, or in another charset than UTF-8 (RFC 8259, 8.1). Raises Problem (415)."""
    coding = headers.get("content-encoding", "").strip().lower()
    if coding not in {"", "identity"}:
        raise Problem(
            Code.UNSUPPORTED_MEDIA_TYPE,
            "The body has a Content-Encoding. Send it without one.",
            headers={"Accept-Encoding": "identity"},
        )
    content_type = headers.get("content-type", "")
    if len(content_type) > CONTENT_TYPE_CHARS_MAX:
        raise Problem(Code.UNSUPPORTED_MEDIA_TYPE)
    if "charset" not in content_type.lower():
        return
    message = Message()
    message["content-type"] = content_type
    if str(message.get_param("charset")).lower() not in {"utf-8", "utf8"}:
        raise Problem(Code.UNSUPPORTED_MEDIA_TYPE, "The body must be UTF-8 (RFC 8259, 8.1).")


def check_media_type(headers: Headers) -> None:
    """Refuse a body that is not JSON by its Content-Type, as FastAPI would leave it unread. Raises Problem (415)."""
    content_type = headers.get("content-type", "")
    if content_type == PLAIN_JSON:
        return
    message = Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    if message.get_content_maintype() != "application" or not (subtype == "json" or subtype.endswith("+json")):
        raise Problem(Code.UNSUPPORTED_MEDIA_TYPE)


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON document. Raises Problem (400) for anything else."""
    try:
        return json.loads(body.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=_not_json)
    # Too many levels are a RecursionError, too many digits a ValueError.
    except (ValueError, RecursionError) as error:
        raise Problem(Code.MALFORMED_REQUEST, NOT_JSON) from error


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        twice = next(name for name, count in Counter(name for name, _ in members).items() if count > 1)
        raise Problem(Code.MALFORMED_REQUEST, f'A JSON object in the body has the member "{member_name(twice)}" twice.')
    return found


def _not_json(_constant: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's parser takes."""
    raise Problem(Code.MALFORMED_REQUEST, NOT_JSON)
