"""The neighbours, as far as the API asks about them: are they healthy."""

import httpx
import structlog

log = structlog.get_logger(__name__)

HEALTH_TIMEOUT_S = 2.0


async def is_healthy(url: str) -> bool:
    """The service at `url` answers 2xx on /health within two seconds."""
    try:
        async with httpx.AsyncClient(timeout=HEALTH_TIMEOUT_S, trust_env=False) as client:
            return (await client.get(f"{url}/health")).is_success
    except httpx.HTTPError as error:
        log.warning("health.neighbour_failed", url=url, error=type(error).__name__)
        return False
