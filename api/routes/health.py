"""Health, readiness and metrics of this process."""

import asyncio
import math
from datetime import UTC, datetime
from typing import Any

import structlog
from fastapi import APIRouter
from fastapi.responses import Response

from api.openapi import examples
from api.openapi.responses import success
from api.responses import json_response
from api.routes.parameters import ApiState
from api.schemas import operations as schemas
from shared import metrics
from shared.database.clock import rfc3339
from shared.errors import PaymentsError
from shared.version import VERSION

log = structlog.get_logger(__name__)
router = APIRouter(tags=["operation"])


@router.get(
    "/health",
    response_model=schemas.Health,
    responses=success(200, "The process is alive.", example=examples.HEALTH),
)
async def get_health(api: ApiState) -> Response:
    """Report that the process is alive. No database and no other service is asked."""
    return json_response(
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
    responses=success(200, "Payments are accepted.", example=examples.READY)
    | success(503, "The database cannot be used.", model=schemas.Ready, example=examples.NOT_READY),
)
async def get_readiness(api: ApiState) -> Response:
    """Report which services can be used. Redis is ready if it takes jobs, not only if it answers.

    The status is 503 only if the database does not let this process read, write and commit: without Redis, payment
    intents are still accepted. The answer about the database is at most a second old.
    """
    database, redis, upstreams = await asyncio.gather(
        api.database_health.get(), api.runtime.broker.probe(), api.readiness.are_healthy()
    )
    checks = {"database": _readiness(database), "redis": _readiness(redis)}
    checks |= {name: _readiness(is_healthy) for name, is_healthy in upstreams.items()}
    return json_response({"ready": database, "checks": checks}, status=200 if database else 503)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "description": "The metrics in the text format of Prometheus.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
async def get_metrics(api: ApiState) -> Response:
    """Return the metrics of this process and the figures of the whole installation, for Prometheus."""
    # It sets payments_can_publish, also in a process that publishes nothing at the moment.
    await api.runtime.broker.probe()
    try:
        figures = await api.stats.current()
    except PaymentsError as error:
        # Safe: the metrics of the process itself are still useful.
        log.warning("metrics.database_failed", error=type(error).__name__)
        figures = {}
    _set_gauges(figures)
    return Response(metrics.installation_exposition(), media_type=metrics.CONTENT_TYPE)


def _set_gauges(figures: dict[str, Any]) -> None:
    """Set the gauges of the whole installation. An unknown figure is NaN: an old value or 0 would mislead alerts."""
    workers = figures.get("workers")
    values = {
        metrics.queue_depth: figures.get("queue_depth"),
        metrics.in_flight: figures.get("in_flight"),
        metrics.oldest_pending_seconds: figures.get("oldest_pending_s"),
        metrics.refund_backlog: figures.get("refund_backlog"),
        metrics.webhook_backlog: figures.get("webhook_backlog"),
        metrics.workers_alive: None if workers is None else len(workers),
        metrics.worker_slots: None if workers is None else sum(worker["slots"] for worker in workers),
        metrics.worker_slots_taken: None if workers is None else sum(map(_slots_taken, workers)),
    }
    for gauge, value in values.items():
        gauge.set(math.nan if value is None else value)


def _slots_taken(worker: dict[str, Any]) -> int:
    taken: int = worker["in_gateway"] + worker["checking_orders"]
    return taken


def _readiness(can_serve: bool | None) -> str:
    if can_serve is None:
        return "not_configured"
    return "ready" if can_serve else "not_ready"
