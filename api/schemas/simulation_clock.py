"""Models of the clock of service time."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.fields import RequestModel

# Seconds by which one request advances the clock at most: a leap year.
ADVANCE_S_MAX = 366 * 24 * 3600
# The year that service time does not reach: far enough for every test, and no moment overflows.
YEAR_MAX = 2200


class Advance(RequestModel):
    """How far to advance the clock."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"seconds": 345600}]})

    seconds: int = Field(
        ge=0,
        le=ADVANCE_S_MAX,
        description="Seconds of service time, added to what is still to come of an advance that goes on. 0 waits for "
        "that.",
    )


class Clock(BaseModel):
    """Service time, and where it comes from."""

    now: datetime = Field(description="Service time: everything that the service stores, shows and waits for.")
    real_now: datetime = Field(description="Real time, by the clock of the database.")
    offset_s: float = Field(description="By how many seconds service time is ahead of real time.")
    speed: float = Field(description="Seconds of service time that pass in one second: SIMULATION_SPEED.")
    advances_to: datetime | None = Field(description="Where an advance that goes on will end; null if there is none.")


class Advanced(BaseModel):
    """How far the clock was advanced, and what that brought about."""

    now: datetime = Field(description="Service time.")
    offset_s: float = Field(description="By how many seconds service time is ahead of real time.")
    became_due: int = Field(
        description="How often a payment, a refund or a delivery was due since the advance began, each try counted."
    )
    ended: int = Field(description="How many of these came to their end.")
    is_idle: bool = Field(
        description="Whether the advance is over and what was due is done. If not, it goes on: repeat with `seconds` 0."
    )
