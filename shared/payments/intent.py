"""A payment intent: what a client asks for, valid and complete."""

from dataclasses import dataclass
from uuid import UUID

from shared.idempotency import KeyRequest
from shared.lifecycle import CaptureMethod
from shared.payments.find import Visible
from shared.simulation.calls import NOT_STEERED, Steering
from shared.simulation.ready_made import ReadyMade


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A valid request for a payment, with the user that pays and the principal that asked for it."""

    id: UUID
    user_id: str  # the user that pays
    created_by: str  # the principal that asked
    visible: Visible  # the payments that the principal may see
    order_id: str
    payment_method_id: UUID
    amount: int  # minor units
    currency: str
    description: str | None
    metadata: dict[str, str]
    callback_url: str | None
    correlation_id: str | None
    idempotency: KeyRequest | None
    capture_method: CaptureMethod = CaptureMethod.AUTOMATIC
    return_url: str | None = None
    steering: Steering = NOT_STEERED
    # The method itself if it is a ready-made one, which no table has.
    ready_made: ReadyMade | None = None
