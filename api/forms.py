"""Forms that our own pages send: how they are read."""

from urllib.parse import parse_qsl

from fastapi import Request

from api.problems import Code, Problem

MEDIA_TYPE = "application/x-www-form-urlencoded"


async def read_fields(request: Request, *, bytes_max: int, fields_max: int) -> dict[str, str]:
    """Return the fields of the form in the body. Raises Problem (400, 413, 415).

    A form that has a field twice is refused: two readers of it may each believe another one.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != MEDIA_TYPE or "content-encoding" in request.headers:
        raise Problem(Code.UNSUPPORTED_MEDIA_TYPE)
    body = await request.body()
    if len(body) > bytes_max:
        raise Problem(Code.BODY_TOO_LARGE)
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=fields_max,
        )
    except ValueError as error:
        raise Problem(Code.MALFORMED_REQUEST, "The form cannot be read.") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Problem(Code.MALFORMED_REQUEST, "The form has a field twice.")
    return fields
