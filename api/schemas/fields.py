"""Types of fields that several models share: what a client may send, and its description in the OpenAPI document."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator
from pydantic.config import JsonDict

from api.cards import has_card_number
from api.schemas.rules import INT64_MAX, known_to_order_service, receiver_url, usable_return_url
from shared.database.clock import in_utc
from shared.database.tables import NAME_CHARS_MAX, URL_CHARS_MAX
from shared.ids import ORDER_ID, USER_ID
from shared.money import is_currency

FORBIDDEN_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")
# In a moment, after its date and the letter T.
LEAP_SECOND = re.compile(r"[0-9]{2}:[0-9]{2}:60")
# A plus sign in a query is read as a blank (application/x-www-form-urlencoded).
UNESCAPED_PLUS = re.compile(r".*[0-9] [0-9]{2}:[0-9]{2}")
# Bytes of the metadata as JSON without spaces.
METADATA_BYTES_MAX = 8192
METADATA_PAIRS_MAX = 20
NO_CARD = "A card number in it is refused."
# Without the format, clients in Java and Go read an integer into 32 bits.
INT64: JsonDict = {"format": "int64"}


def clean_text(text: str) -> str:
    """Refuse control characters and lone surrogates, which some databases and logs cannot hold. Raises ValueError."""
    if FORBIDDEN_TEXT.search(text):
        raise ValueError("must not contain control characters")
    return text


def cardless_text(text: str) -> str:
    """Refuse what `clean_text` refuses and a card number, which must not be stored anywhere. Raises ValueError."""
    if has_card_number(clean_text(text)):
        raise ValueError("must not contain a card number: 13 to 19 digits with a valid check digit")
    return text


def decimal_text(value: Any) -> Any:
    """Return a text as it is, and an integer of 64 bits in its decimal form. Raises ValueError for another value."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= INT64_MAX:
        return str(value)
    raise ValueError("must be a string or an integer of 64 bits")


def require_true(value: Any) -> Any:
    """Refuse everything but true: a `Literal[True]` would accept 1, too. Raises ValueError."""
    if value is not True:
        raise ValueError("must be true")
    return value


def _rfc3339(value: Any) -> Any:
    # Pydantic would read 0.5 as half a second after the beginning of 1970.
    if not isinstance(value, str) or not MOMENT.match(value):
        raise ValueError("must be a moment such as 2026-11-22T12:00:00Z")
    if LEAP_SECOND.match(value, len("2026-11-22T")):
        raise ValueError("has a leap second, which no clock here knows: write the second after it")
    if UNESCAPED_PLUS.fullmatch(value, len("2026-11-22T")):
        raise ValueError("has a blank before its offset: write the plus sign as %2B")
    return value


def _known_currency(code: str) -> str:
    if not is_currency(code):
        raise ValueError("must be a currency that payments are made in: an ISO 4217 code in upper case, such as USD")
    return code


def _small(metadata: dict[str, str]) -> dict[str, str]:
    if len(orjson.dumps(metadata)) > METADATA_BYTES_MAX:
        raise ValueError(f"is larger than {METADATA_BYTES_MAX} bytes")
    return metadata


type Moment = Annotated[
    datetime,
    BeforeValidator(_rfc3339, json_schema_input_type=datetime),
    AfterValidator(in_utc),
    Field(description="A date and time with a time zone (RFC 3339), such as 2026-11-22T12:00:00Z."),
]
# An integer of a response that may outgrow 32 bits: an amount, or a number of rows.
Int64 = Annotated[int, Field(json_schema_extra=INT64)]
# An id as a client may send it instead of a text.
IntegerId = Annotated[int, Field(ge=-INT64_MAX, le=INT64_MAX, json_schema_extra=INT64)]
type OrderId = Annotated[
    str,
    BeforeValidator(decimal_text, json_schema_input_type=Annotated[str, Field(pattern=ORDER_ID)] | IntegerId),
    StringConstraints(pattern=ORDER_ID),
    AfterValidator(known_to_order_service),
    Field(
        description="The order that is paid. An integer is taken as its decimal text. If the installation has an order "
        "service, this must be a positive integer.",
        examples=["1042"],
    ),
]
# No `type` statement: generators of Java clients cannot read a reference that has a default.
Currency = Annotated[
    str,
    AfterValidator(_known_currency),
    Field(description="ISO 4217 code, in upper case.", examples=["USD"], json_schema_extra={"pattern": "^[A-Z]{3}$"}),
]
type MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(clean_text)]
type MetadataValue = Annotated[str, StringConstraints(max_length=500), AfterValidator(clean_text)]
type Metadata = Annotated[
    dict[MetadataKey, MetadataValue],
    Field(
        description="Pairs of the client, which are stored and returned unchanged: at most "
        f"{METADATA_PAIRS_MAX} pairs, keys of 1-40 and values of up to 500 characters, together at most "
        f"{METADATA_BYTES_MAX} bytes of JSON.",
        max_length=METADATA_PAIRS_MAX,
    ),
    AfterValidator(_small),
]
type Url = Annotated[
    str,
    StringConstraints(min_length=1, max_length=URL_CHARS_MAX),
    AfterValidator(clean_text),
    AfterValidator(receiver_url),
]
type ReturnUrl = Annotated[
    str,
    StringConstraints(min_length=1, max_length=URL_CHARS_MAX),
    AfterValidator(clean_text),
    AfterValidator(usable_return_url),
]
type Name = Annotated[str, StringConstraints(min_length=1, max_length=NAME_CHARS_MAX), AfterValidator(clean_text)]
type DisplayName = Annotated[
    str, StringConstraints(min_length=1, max_length=NAME_CHARS_MAX), AfterValidator(cardless_text)
]
type UserId = Annotated[
    str,
    BeforeValidator(decimal_text, json_schema_input_type=Annotated[str, Field(pattern=USER_ID)] | IntegerId),
    StringConstraints(pattern=USER_ID),
    Field(description="A user. An integer is taken as its decimal text.", examples=["1"]),
]


def not_null(value: Any) -> Any:
    """Refuse null where the absence of a member means something. Raises ValueError."""
    if value is None:
        raise ValueError("must not be null: leave it out to mean all")
    return value


# A null may be a mistake of the client, which must not move the whole amount. An absent member is not validated.
AmountOfPart = Annotated[
    Annotated[int, Field(ge=1, le=INT64_MAX, json_schema_extra=INT64)] | None,
    BeforeValidator(not_null),
    Field(description="In minor units of the payment's currency. Without it: all that is there."),
]


class RequestModel(BaseModel):
    """The base of every request body. An unknown member is an error: ignoring it could hide a mistake of the client."""

    model_config = ConfigDict(extra="forbid", strict=True)


def without_null(*examples: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Return what completes the schema of a body with optional members: its examples, and no null in its members.

    It describes the members as they must be if they are there: None is only how their absence is read.
    """

    def describe(schema: dict[str, Any]) -> None:
        _without_null(schema)
        schema["examples"] = list(examples)

    return describe


def change_config(example: dict[str, Any]) -> ConfigDict:
    """Return the configuration of a change with an example of it; see `without_null`."""
    return ConfigDict(json_schema_extra=without_null(example))


def _without_null(schema: dict[str, Any]) -> None:
    for member in schema["properties"].values():
        if {"type": "null"} not in member.get("anyOf", ()):
            continue
        del member["default"]
        remove_null(member)


def remove_null(schema: dict[str, Any]) -> None:
    """Make a schema that is of one type or null one of that type alone."""
    match schema:
        case {"anyOf": [kind, {"type": "null"}]}:
            del schema["anyOf"]
            schema.update(kind)
        case _:
            pass


def without_type_of_null(schema: dict[str, Any]) -> None:
    """Describe a member as it must be if it is there: None is only how its absence is read."""
    schema.pop("default", None)
    remove_null(schema)


class ChangeModel(RequestModel):
    """The base of every body of a PATCH, which has `change_config`.

    A member that is absent changes nothing, and null is an error.
    """

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_null(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("must not be null: leave it out to change nothing")
        return value
