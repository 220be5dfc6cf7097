"""The clock of service time: what it says, and advancing it."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import structlog
from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth.dependencies import Administrative, Authenticated
from api.openapi import examples
from api.openapi.responses import BODY, KEYED, problems, success
from api.problems import Code, Problem, invalid
from api.responses import json_response
from api.routes.idempotent import REPLAYED_HEADER, IdempotencyKey, key_request_of, run_idempotent
from api.routes.parameters import ApiState
from api.routes.ready_made import require_simulation
from api.routes.strict_route import StrictRoute
from api.schemas import simulation_clock as schemas
from api.state import Api
from shared.database.clock import rfc3339, whole_milliseconds
from shared.database.clock_tables import simulation_clock
from shared.errors import OlderWorkers
from shared.ids import new_id
from shared.simulation.clock import lock_clock, write_clock

log = structlog.get_logger(__name__)
router = APIRouter(route_class=StrictRoute, prefix="/simulation/clock", tags=["simulation"])

# Seconds after which the answer comes although the advance goes on, and between two looks whether it is over.
ANSWER_AFTER_S, LOOK_S = 25.0, 0.05


@router.get(
    "",
    response_model=schemas.Clock,
    responses=problems(Code.SIMULATION_DISABLED) | success(200, "The clock.", example=examples.CLOCK),
)
async def get_clock(_principal: Authenticated, api: ApiState) -> Response:
    """Return service time, its speed, and by how much it is ahead of real time."""
    require_simulation(api, "The clock of the simulation needs SIMULATION=on.")
    clock = api.runtime.database.clock
    async with api.runtime.database.read() as connection:
        now = await clock.now(connection)
    real_now, until = clock.real_now(), clock.time.advances_to
    return json_response(
        {
            "now": rfc3339(now),
            "real_now": rfc3339(real_now),
            "offset_s": _offset_s(now, real_now),
            "speed": clock.time.speed_at(real_now),
            "advances_to": rfc3339(until) if until else None,
        }
    )


@router.post(
    "/advance",
    response_model=schemas.Advanced,
    responses=problems(*BODY, *KEYED, Code.FORBIDDEN, Code.SIMULATION_DISABLED)
    | success(200, "The clock was advanced, or is being advanced.", example=examples.ADVANCED),
)
async def advance_clock(
    body: schemas.Advance, principal: Administrative, api: ApiState, key: IdempotencyKey = None
) -> Response:
    """Advance service time: from due moment to due moment, each only after what was due before has been done.

    So schedules run in their order: retries, webhooks, expiries. Leases and everything else in real time are not
    touched. The answer comes after at most 25 seconds; if `is_idle` is false, the advance goes on, and the same request
    with 0 `seconds` waits for it. It cannot be taken back, and is never possible in production.
    """
    require_simulation(api, "Advancing the clock needs SIMULATION=on.")
    if not api.runtime.settings.is_clock_steerable:
        raise Problem(Code.SIMULATION_DISABLED, "The clock is never advanced in production.")

    async def begin(connection: AsyncConnection, _now: datetime, repeated: UUID | None) -> None:
        if repeated is None:
            await _begin(connection, api, body.seconds)

    key_request = key_request_of(
        api.runtime.keyring,
        principal,
        key,
        operation="POST /simulation/clock/advance",
        content=body.model_dump() if key else None,
        object_id=new_id(),
    )
    _, is_repeat = await run_idempotent(api, key_request, begin)
    if not is_repeat:
        log.info("clock.advance_requested", by=principal.actor, seconds=body.seconds)
    api.advancer.start()
    answer = await _within(api, monotonic() + ANSWER_AFTER_S)
    return json_response(answer, headers=REPLAYED_HEADER if is_repeat else None)


async def _begin(connection: AsyncConnection, api: Api, seconds: int) -> None:
    """Write the target of an advance. Raises Problem or OlderWorkers."""
    if api.worker_versions.has_0_1():
        raise OlderWorkers("an advance of the clock")
    time, real_now = await lock_clock(connection)
    until = (time.advances_to or whole_milliseconds(time.at(real_now))) + timedelta(seconds=seconds)
    if until.year >= schemas.YEAR_MAX:
        raise invalid("/seconds", f"must end before the year {schemas.YEAR_MAX}")
    anew = {} if time.is_advancing else {"became_due": 0, "ended": 0, "advanced_by": None}
    await write_clock(connection, replace(time, advances_to=until), **anew)


async def _within(api: Api, deadline: float) -> dict[str, Any]:
    """Return the state of the advance once it is over, or at `deadline` (monotonic, in seconds)."""
    database = api.runtime.database
    while True:
        async with database.read() as connection:
            now = await database.clock.now(connection)
            row = (await connection.execute(select(simulation_clock))).one()
        is_over = row.advances_to is None
        if is_over or monotonic() > deadline or api.is_stopping:
            return {
                "now": rfc3339(now),
                "offset_s": _offset_s(now, database.clock.real_now()),
                "became_due": row.became_due,
                "ended": row.ended,
                "is_idle": is_over,
            }
        await asyncio.sleep(LOOK_S)


def _offset_s(now: datetime, real_now: datetime) -> float:
    return round((now - real_now).total_seconds(), 3)
