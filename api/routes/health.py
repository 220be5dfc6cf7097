"""Is it alive, can it work, what has it counted."""

import asyncio
from datetime import UTC, datetime

import structlog
from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api import schemas
from api.neighbours import is_healthy
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
    settings = api.runtime.settings
    database, redis, auth_service, order_service = await asyncio.gather(
        _database_answers(api),
        api.runtime.carrier.ping(),
        _neighbour(settings.auth_service_url),
        _neighbour(settings.order_service_url),
    )
    checks = {
        "database": _word(database),
        "redis": _word(redis),
        "auth_service": auth_service,
        "order_service": order_service,
    }
    return document({"ready": database, "checks": checks}, status=200 if database else 503)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def prometheus() -> Response:
    """This process's figures, for Prometheus."""
    return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE)


async def _database_answers(api: Api) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S), api.runtime.database.read() as connection:
            await connection.execute(text("SELECT 1"))
    except (PaymentsError, SQLAlchemyError, TimeoutError) as error:
        log.warning("health.database_failed", error=type(error).__name__)
        return False
    return True


async def _neighbour(url: str | None) -> str:
    return _word(await is_healthy(url)) if url else "not_configured"


def _word(answers: bool) -> str:
    return "ready" if answers else "not_ready"
