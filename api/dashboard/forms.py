"""Forms of the dashboard: what they send, that they are the page's own, and the numbers in them."""

import re
from collections.abc import Mapping
from hmac import compare_digest

from fastapi import Request

from api.dashboard.json_api import Answer, Refused
from api.dashboard.sessions import new_secret
from api.forms import read_fields
from api.problems import Code, Problem
from shared.money import exponent, in_major_units, is_currency

FORM_BYTES_MAX = 16 * 1024
FIELDS_MAX = 40
# No number of a form is longer, and the int of a very long text is an error of its own.
DIGITS_MAX = 9
# Characters of a key of a page. Each of its forms adds its own letter.
KEY_CHARS = 43
# The digits before the point of an amount: in minor units it has 64 bits with any currency.
MAJOR_DIGITS_MAX = 15
# An amount in minor units, for the sentence about wrong ones.
EXAMPLE = 1585
DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
# The field with the value that only our own pages know.
FORM = "form"
# What browsers say of a request that no other site has caused. Older ones say nothing.
OWN_SITES = frozenset({"same-origin", "none"})

NOT_OWN = "This form did not come from this page, or the page is too old. Nothing has changed."
GO_BACK = "Go back, load the page again, and send its form once more."


class ForeignForm(Problem):
    """A form without the value that only our own pages know, or with that of another session."""

    def __init__(self) -> None:
        super().__init__(Code.FORBIDDEN, f"{NOT_OWN} {GO_BACK}")


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of the form in the body. Raises Problem (400, 413, 415)."""
    return await read_fields(request, bytes_max=FORM_BYTES_MAX, fields_max=FIELDS_MAX)


async def read_own_form(request: Request, value: str) -> dict[str, str]:
    """Return the fields of a form that has `value`. Raises ForeignForm (403) for one of another page or site."""
    form = await read_form(request)
    is_from_here = request.headers.get("sec-fetch-site", "none") in OWN_SITES
    if not is_from_here or not compare_digest(form.pop(FORM, "").encode(), value.encode()):
        raise ForeignForm
    return form


def wrong(sentence: str) -> Refused:
    """Return the refusal (422) of what a form says, for the page that has the form."""
    return Refused(Answer(422, {"code": Code.VALIDATION_ERROR, "detail": sentence}))


def next_key(refused: Refused | None = None, sent: str = "") -> str:
    """Return the beginning of the idempotency keys of a page's forms: a form that is sent twice does its work once.

    Where nobody knows whether a form was done, it is that of the key that was `sent`: sent again, the form does nothing
    twice either.
    """
    kept = sent[:KEY_CHARS] if refused is not None and refused.code == Code.OUTCOME_UNKNOWN else ""
    return kept or new_secret()


def digits(text: str, *, digits_max: int = DIGITS_MAX) -> int | None:
    """Return the number that ASCII digits alone write; None for any other text, and for more digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits_max else None


def whole_number(form: Mapping[str, str], name: str, *, between: tuple[int, int] | None = None) -> int | None:
    """Return the number in a field, within its bounds; None if the field is empty. Raises Refused (422) otherwise."""
    text = form.get(name, "").strip()
    if not text:
        return None
    number = digits(text)
    if number is None:
        raise wrong(f'"{name}" must be a whole number of at most {DIGITS_MAX} digits.')
    if between and not between[0] <= number <= between[1]:
        raise wrong(f'"{name}" must be between {between[0]} and {between[1]:,}.')
    return number


def decimal_number(form: Mapping[str, str], name: str) -> float | None:
    """Return the number in a field, such as 0.5; None if the field is empty. Raises Refused (422) for another text."""
    text = form.get(name, "").strip()
    if not text:
        return None
    if not DECIMAL.fullmatch(text):
        raise wrong(f'"{name}" must be a number such as 10 or 0.5.')
    return float(text)


def minor_units(text: str, currency: str) -> int:
    """Return an amount in major units, such as `15.85`, in minor units.

    Raises Refused (422) for more decimals than the currency has, for what is no amount, and for an unknown currency.
    """
    if not is_currency(currency):
        raise wrong('"currency" must be a currency of ISO 4217, such as USD.')
    decimals = exponent(currency)
    whole, point, part = text.partition(".")
    major = digits(whole, digits_max=MAJOR_DIGITS_MAX)
    minor = digits(part.ljust(decimals, "0"), digits_max=decimals) if point and part else 0
    if major is None or minor is None or (point and not part):
        example = in_major_units(EXAMPLE, currency)
        raise wrong(f"The amount must be a number such as {example}: {currency} has {decimals or 'no'} decimals.")
    units: int = 10**decimals
    return major * units + minor
