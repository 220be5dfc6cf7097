"""What the service has put into Redis, read back. Anything else that stands there is dropped with a warning.

Any client of a shared Redis may write there, and while versions run side by side a newer one may store more members.
"""

from typing import Annotated

import structlog
from pydantic import AfterValidator, AwareDatetime, Field, TypeAdapter, ValidationError

from shared.database.clock import in_utc

log = structlog.get_logger(__name__)

# Up to here JavaScript reads integers exactly, and the sum over all workers has 64 bits.
type Count = Annotated[int, Field(ge=0, lt=2**53)]
type Seconds = Annotated[float, Field(gt=-(2**53), lt=2**53)]
# Unix seconds of a moment that datetime can have, also when it is rounded up.
type UnixSeconds = Annotated[float, Field(ge=0, lt=253_402_300_799)]
type Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]


def read_stored[T](form: TypeAdapter[T], stored: bytes | None) -> T | None:
    """Return the JSON that was stored, in its form, without members that the form does not have.

    Return None if nothing was stored, or something that has not this form.
    """
    if stored is None:
        return None
    try:
        return form.validate_json(stored, strict=True)
    except ValidationError as error:
        log.warning("redis.value_refused", wanted=error.title, problem=error.errors(include_input=False)[0]["type"])
        return None
