"""Is it alive, can it work, what has it counted."""

import asyncio
import math
from datetime import UTC, datetime
from typing import Any

import structlog
from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api import schemas
from api.requests import ApiState
from api.responses import document
from api.state import Api
from shared import metrics
from shared.clock import rfc3339
from shared.errors import PaymentsError
from shared.version import VERSION

log = structlog.get_logger(__name__)
router = APIRouter(tags=["operation"])

CHECK_TIMEOUT_S = 2.0


@router.get("/health", response_model=schemas.Health)
async def health(api: ApiState) -> Response:
    """The process is alive; nobody else is asked."""
    return document(
        {
            "status": "healthy",
            "timestamp": rfc3339(datetime.now(UTC)),
            "version": VERSION,
            "uptime": round(api.uptime_s(), 3),
        }
    )


@router.get(
    "/health/ready",
    response_model=schemas.Ready,
    responses={503: {"model": schemas.Ready, "description": "The database does not answer."}},
)
async def ready(api: ApiState) -> Response:
    """What can be reached. Only the database makes it 503: without Redis, intents are accepted all the same."""
    database, redis, neighbours = await asyncio.gather(
        _database_answers(api), api.runtime.carrier.ping(), api.neighbours.are_healthy()
    )
    checks = {"database": _word(database), "redis": _word(redis)}
    checks |= {name: _word(answers) for name, answers in neighbours.items()}
    return document({"ready": database, "checks": checks}, status=200 if database else 503)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def prometheus(api: ApiState) -> Response:
    """This process's figures, and those of the whole installation, for Prometheus."""
    try:
        figures = await api.stats.current()
    except PaymentsError as error:
        log.warning("metrics.database_failed", error=type(error).__name__)  # the process's own figures still help
        figures = {}
    _show(figures)
    return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE)


def _show(figures: dict[str, Any]) -> None:
    """What nobody knows right now is NaN: neither an old figure nor a nought that would raise an alarm."""
    workers = figures.get("workers")
    shown = {
        metrics.queue_depth: figures.get("queue_depth"),
        metrics.in_flight: figures.get("in_flight"),
        metrics.oldest_pending_seconds: figures.get("oldest_pending_s"),
        metrics.webhook_backlog: figures.get("webhook_backlog"),
        metrics.workers_alive: None if workers is None else len(workers),
        metrics.worker_slots: None if workers is None else sum(worker["slots"] for worker in workers),
        metrics.worker_slots_taken: None if workers is None else sum(worker["in_gateway"] for worker in workers),
    }
    for gauge, value in shown.items():
        gauge.set(math.nan if value is None else value)


async def _database_answers(api: Api) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S), api.runtime.database.read() as connection:
            await connection.execute(text("SELECT 1"))
    except (PaymentsError, SQLAlchemyError, TimeoutError) as error:
        log.warning("health.database_failed", error=type(error).__name__)
        return False
    return True


def _word(answers: bool | None) -> str:
    if answers is None:
        return "not_configured"
    return "ready" if answers else "not_ready"
