"""A bare route with the same request and response models: the most that the framework alone can accept."""

from datetime import UTC, datetime

from fastapi import FastAPI

from api.schemas.payments import MethodDetails, Payment, PaymentRequest
from shared.ids import new_id
from shared.lifecycle import MethodType, PaymentStatus

app = FastAPI()


@app.post("/api/v1/payments", status_code=202, response_model=Payment)
async def create_payment(body: PaymentRequest) -> Payment:
    """Answer as if the payment was accepted, and store nothing."""
    now = datetime.now(UTC)
    return Payment.model_construct(
        id=str(new_id()),
        order_id=body.order_id,
        user_id="1",
        created_by="user:1",
        payment_method_id=body.payment_method_id,
        amount=body.amount,
        currency=body.currency,
        description=body.description,
        metadata=body.metadata,
        callback_url=body.callback_url,
        status=PaymentStatus.PENDING,
        capture_method=body.capture_method,
        amount_authorized=0,
        amount_captured=0,
        amount_refunded=0,
        amount_refundable=0,
        return_url=body.return_url,
        next_action=None,
        capture_before=None,
        last_capture_error=None,
        gateway=None,
        gateway_transaction_id=None,
        simulation=None,
        failure_code=None,
        failure_reason=None,
        failure_advice=None,
        outcome_rule=None,
        payment_method_details=MethodDetails(type=MethodType.CREDIT_CARD, brand="visa", last4="4242"),
        gateway_details=None,
        sequence=1,
        livemode=False,
        created_at=now,
        updated_at=now,
        processed_at=None,
    )


@app.get("/health/ready")
async def ready() -> dict[str, bool]:
    """Answer that the API is ready."""
    return {"ready": True}
