"""Forms of the dashboard: what they send, and that they are the page's own."""

from collections.abc import Mapping
from hmac import compare_digest

from fastapi import Request

from api.forms import read_fields
from api.problems import Code, Problem

FORM_BYTES_MAX = 16 * 1024
FIELDS_MAX = 40
DIGITS_MAX = 9
# The field with the value that only our own pages know.
FORM = "form"
# What browsers say of a request that no other site has caused. Older ones say nothing.
OWN_SITES = frozenset({"same-origin", "none"})

NOT_OWN = "This form did not come from this page, or the page is too old. Nothing has changed. Please try again."


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of the form in the body. Raises Problem (400, 413, 415)."""
    return await read_fields(request, bytes_max=FORM_BYTES_MAX, fields_max=FIELDS_MAX)


async def read_own_form(request: Request, value: str) -> dict[str, str]:
    """Return the fields of a form that has `value`. Raises Problem (403) for a form of another page or site."""
    form = await read_form(request)
    is_from_here = request.headers.get("sec-fetch-site", "none") in OWN_SITES
    if not is_from_here or not compare_digest(form.pop(FORM, "").encode(), value.encode()):
        raise Problem(Code.FORBIDDEN, NOT_OWN)
    return form


def whole_number(form: Mapping[str, str], name: str) -> int | None:
    """Return the number in a field; None if the field is empty. Raises Problem (422) for anything else."""
    text = form.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
        raise Problem(Code.VALIDATION_ERROR, f'"{name}" must be a whole number.')
    return int(text)
