"""The faults of a request, in words: one whole sentence for each wrong value, which begins with the quoted field.

No word of pydantic reaches a client, and no value of the request is repeated: it may hold a card number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from api.cards import CVC
from api.problems import Code, Problem, fault
from shared.ids import ORDER_ID, ORDER_IDS, USER_ID
from shared.lifecycle import MethodType
from shared.logs import redact

# Characters that a pointer repeats of a member name that the client chose.
NAME_CHARS_MAX = 64
# The length of the location of a member of an object of the client: `body`, the object, the member.
NAMED_MEMBER_DEPTH = 3

# The type of an item that has its reason with it.
REFUSED = "refused"
# Codes of their own for a request whose only fault is of this kind. They are types of items as well.
OWN_CODES = frozenset({Code.CALLBACK_URL_REFUSED, Code.PAYMENT_METHOD_UNUSABLE})

_INTEGER = "must be an integer"
_BOOLEAN = "must be true or false"
_OBJECT = "must be a JSON object"
_MOMENT = "must be a moment that exists, such as 2026-11-22T12:00:00Z"
# Each continues a sentence that begins with the field. The types are pydantic's; `{...}` are members of its `ctx`.
REASONS = {
    "missing": "is required",
    "extra_forbidden": "is not known here: leave it out or correct its name",
    "string_type": "must be a string",
    "string_unicode": "must be a string without lone surrogates",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have at most {max_length} characters",
    "int_type": _INTEGER,
    "int_from_float": _INTEGER,
    "int_parsing": _INTEGER,
    "int_parsing_size": _INTEGER,
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": _BOOLEAN,
    "bool_parsing": _BOOLEAN,
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be an array",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have at most {max_length} entries",
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "datetime_type": _MOMENT,
    "datetime_parsing": _MOMENT,
    "datetime_from_date_parsing": _MOMENT,
    "union_tag_invalid": f"must be one of {', '.join(MethodType)}",
    "union_tag_not_found": f"must be one of {', '.join(MethodType)}",
}
# The last digits of a card number.
LAST4 = r"^[0-9]{4}$"
# An idempotency key as a member of a body.
KEY = r"^[!-~]{1,255}$"
# What a text must look like, in words, for each pattern that a request has. The names of API keys have the pattern of
# the ids of orders.
PATTERNS = {
    ORDER_ID: "must be 1-64 of the characters A-Z, a-z, 0-9, dot, hyphen and underscore",
    ORDER_IDS: "must be 1-64 of the characters A-Z, a-z, 0-9, dot, hyphen and underscore, and may end in *",
    LAST4: "must have 4 digits",
    KEY: "must be 1-255 visible ASCII characters",
    USER_ID: "must be 1-64 visible ASCII characters",
    CVC: "must have 3 or 4 digits",
}
# Types of items that are ours, and have their reason with them.
OWN_TYPES = frozenset({REFUSED, *OWN_CODES})
# For a type of pydantic that nothing of ours is expected to raise.
UNKNOWN = "is not valid"

type Item = Mapping[str, Any]


def refused(location: tuple[str | int, ...], reason: str) -> dict[str, Any]:
    """Return the item of a fault that was found outside of pydantic, in the form of pydantic's own items."""
    return {"type": REFUSED, "loc": location, "ctx": {"reason": reason}}


def refusal(code: Code, reason: str, detail: str | None = None) -> PydanticCustomError:
    """Return the error that a validator raises for a fault with a code of its own (OWN_CODES).

    `detail` is that of the problem document if the request has no other fault.
    """
    return PydanticCustomError(code.value, "{reason}", {"reason": reason, "detail": detail})


def wrong_members(reasons: Mapping[tuple[str | int, ...], str]) -> ValidationError:
    """Return the error that the validator of an object raises for members that are wrong together, by their places.

    Each reason continues a sentence that begins with the member.
    """
    faults = [
        InitErrorDetails(type=PydanticCustomError(REFUSED, "{reason}", {"reason": reason}), loc=place, input=None)
        for place, reason in reasons.items()
    ]
    return ValidationError.from_exception_data("members", faults)


def moved(error: ValidationError, places: Mapping[tuple[str | int, ...], tuple[str | int, ...]]) -> ValidationError:
    """Return the error with the faults at `places`, and below them, where a client sent what is wrong there."""
    faults = []
    for item in error.errors(include_url=False, include_input=False):
        location, context = item["loc"], item.get("ctx", {})
        for place, sent_as in places.items():
            if location[: len(place)] == place:
                location = (*sent_as, *location[len(place) :])
        kind: Any = item["type"]
        if kind in OWN_TYPES:
            kind = PydanticCustomError(kind, "{reason}", context)
        faults.append(InitErrorDetails(type=kind, loc=location, input=None, ctx=context))
    return ValidationError.from_exception_data("members", faults)


def problem_of(items: Sequence[Item]) -> Problem:
    """Return the 422 that names the fault of each item, in their order.

    Its code is `validation_error`, or the one that all faults have in common.
    """
    codes = {item["type"] if item["type"] in OWN_CODES else Code.VALIDATION_ERROR for item in items}
    code = Code(codes.pop()) if len(codes) == 1 else Code.VALIDATION_ERROR
    detail = items[0]["ctx"]["detail"] if code in OWN_CODES else None
    return Problem(code, detail, errors=[_fault(item) for item in items])


def member_name(part: str | int) -> str:
    """Return the name of a member, shortened, and without a card number that a client put there."""
    return redact(str(part))[:NAME_CHARS_MAX].encode("utf-8", "replace").decode()


def _fault(item: Item) -> dict[str, str]:
    location, reason = item["loc"], _reason(item)
    if item["type"].startswith("union_tag_"):
        location = (*location, "type")
    # Pydantic adds this to the location of a member whose name is wrong.
    elif len(location) > NAMED_MEMBER_DEPTH and location[-1] == "[key]":
        location, reason = location[:-1], f"has a name that {reason}"
    path = _path(location)
    if not path:
        return fault("", _OBJECT)
    pointer = "".join(f"/{member_name(part).replace('~', '~0').replace('/', '~1')}" for part in path)
    return fault(pointer, reason, name=_name(path))


def _path(location: tuple[str | int, ...]) -> Sequence[str | int]:
    """Return the parts of the JSON pointer (RFC 6901). Outside the body it begins with `path`, `query` or `header`."""
    where, *rest = location
    if where != "body":
        return location
    # Pydantic adds the name of the model that `type` selected.
    return rest[1:] if len(rest) > 1 and rest[0] in tuple(MethodType) else rest


def _name(path: Sequence[str | int]) -> str:
    """Return the name of the field: the last part, or the array and the number of its entry."""
    *others, last = path
    return f"{member_name(others[-1])}[{last}]" if isinstance(last, int) and others else member_name(last)


def _reason(item: Item) -> str:
    kind, context = item["type"], item.get("ctx", {})
    reason: str
    if kind in OWN_TYPES:
        reason = context["reason"]
    elif kind == "value_error":
        reason = str(context["error"])
    elif kind == "string_pattern_mismatch":
        reason = PATTERNS.get(context["pattern"], UNKNOWN)
    elif kind in {"enum", "literal_error"}:
        reason = f"must be {context['expected']}".replace("'", '"')
    else:
        reason = REASONS.get(kind, UNKNOWN).format_map(context)
    return reason.encode("utf-8", "replace").decode()
