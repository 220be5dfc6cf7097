"""The baseline's worker: one arq job per payment, a get and a commit per step, httpx for the webhook."""

import asyncio
import os
import random
import uuid
from typing import Any

import httpx
from arq.connections import RedisSettings

from bench.baseline.models import History, Payment, sessions


async def process_payment(ctx: dict[str, Any], payment_id: str) -> None:
    """Process one payment from PENDING to its end, and send the webhook."""
    await _move(payment_id, "PROCESSING", None)
    await asyncio.sleep(random.uniform(1, 3))  # noqa: S311 - the same delay as ours
    succeeded = random.random() < 0.95  # noqa: S311, PLR2004
    status = "COMPLETED" if succeeded else "FAILED"
    await _move(payment_id, status, f"ch_{uuid.uuid4().hex[:24]}" if succeeded else None)
    body = {"type": f"payment.{status.lower()}", "data": {"payment": {"id": payment_id, "status": status}}}
    client: httpx.AsyncClient = ctx["client"]
    (await client.post(os.environ["BASELINE_RECEIVER"], json=body)).raise_for_status()


async def _move(payment_id: str, status: str, transaction_id: str | None) -> None:
    async with sessions() as session:
        payment = await session.get_one(Payment, uuid.UUID(payment_id))
        payment.status = status
        payment.gateway_transaction_id = transaction_id
        session.add(History(payment_id=payment.id, status=status))
        await session.commit()


async def _startup(ctx: dict[str, Any]) -> None:
    ctx["client"] = httpx.AsyncClient(timeout=15, trust_env=False)


async def _shutdown(ctx: dict[str, Any]) -> None:
    await ctx["client"].aclose()


class WorkerSettings:
    """The settings of the worker: the defaults of arq, with more jobs at once."""

    functions = (process_payment,)
    on_startup = _startup
    on_shutdown = _shutdown
    redis_settings = RedisSettings.from_dsn(os.environ["REDIS_URL"])
    max_jobs = 1000
