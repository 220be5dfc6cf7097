"""The baseline's API: a session and a commit per request, one job per payment."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import jwt
from arq import create_pool
from arq.connections import RedisSettings
from fastapi import FastAPI, Header, HTTPException, Request

from api.schemas.payments import PaymentRequest
from bench.baseline.models import Base, History, Payment, engine, sessions


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    app.state.redis = await create_pool(RedisSettings.from_dsn(os.environ["REDIS_URL"]))
    yield
    await app.state.redis.aclose()


app = FastAPI(lifespan=_lifespan)


@app.post("/api/v1/payments", status_code=202)
async def create_payment(body: PaymentRequest, request: Request, authorization: str = Header()) -> dict[str, object]:
    """Accept a payment."""
    try:
        claims = jwt.decode(authorization.removeprefix("Bearer "), os.environ["JWT_SECRET_KEY"], algorithms=["HS256"])
    except jwt.PyJWTError as error:
        raise HTTPException(401) from error
    async with sessions() as session:
        payment = Payment(
            order_id=body.order_id,
            user_id=str(claims["user_id"]),
            payment_method_id=body.payment_method_id,
            amount=body.amount,
            currency=body.currency,
        )
        session.add(payment)
        await session.flush()
        session.add(History(payment_id=payment.id, status="PENDING"))
        await session.commit()
    await request.app.state.redis.enqueue_job("process_payment", str(payment.id))
    return {
        "id": str(payment.id),
        "order_id": payment.order_id,
        "user_id": payment.user_id,
        "amount": payment.amount,
        "currency": payment.currency,
        "status": payment.status,
        "created_at": payment.created_at,
    }


@app.get("/health/ready")
async def ready() -> dict[str, bool]:
    """Answer that the API is ready."""
    return {"ready": True}
