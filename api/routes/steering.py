"""What a request wants of the calls of its operation to the gateway."""

from typing import Any

from pydantic import BaseModel

from api.routes.ready_made import require_simulation
from api.schemas.simulation import WITHOUT_STEERING, CaptureSteering, ChargeSteering, RefundSteering
from api.state import Api
from shared.simulation.calls import NOT_STEERED, Steering


def steering_of(simulation: ChargeSteering | CaptureSteering | RefundSteering | None, api: Api) -> Steering:
    """Return what `simulation` asks for. Raises Problem (simulation_disabled) where SIMULATION is off."""
    if simulation is None:
        return NOT_STEERED
    require_simulation(api, WITHOUT_STEERING)
    return simulation.steering()


def content_with_steering(body: BaseModel) -> dict[str, Any]:
    """Return the content by which two requests are the same: without `simulation` that of before there was one."""
    return body.model_dump(exclude={"simulation"} if getattr(body, "simulation", None) is None else None)
