"""Who floods the service with requests that it refuses unread does not fill its log; all of them are counted."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx

from shared.config.settings import Settings
from shared.database.migrations import migrate
from shared.log_limits import REFUSALS_MAX, WINDOW_S
from tests.support.processes import PaymentsProcess, processes
from tests.support.raw_http import connected
from tests.support.servers import free_port
from tests.support.waiting import eventually

FLOOD = 150
NOT_HTTP = b"no request\r\n\r\n"
TOO_LARGE = (
    b"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 70000\r\n\r\n"
)
# Monitoring asks here every few seconds, and nothing is logged of it.
TOO_LARGE_AND_QUIET = b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n"


async def refused(url: str, request: bytes) -> int:
    async with connected(url) as connection:
        await connection.send(request)
        [answer] = await connection.responses(1)
        return answer.status


async def test_a_flood_of_refusals_is_counted_and_not_logged_line_by_line(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(port=free_port())
    await migrate(settings)
    api = PaymentsProcess("api", tmp_path / "api", settings)
    url = f"http://127.0.0.1:{settings.port}"
    with processes(api):
        await api.ready()
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            await http.get("/api/v1/payments")
            for request, status in ((NOT_HTTP, 400), (TOO_LARGE_AND_QUIET, 413), (TOO_LARGE, 413)):
                answers = await asyncio.gather(*(refused(url, request) for _ in range(FLOOD)))
                assert Counter(answers) == {status: FLOOD}
            # What was read is logged all the same.
            await http.get("/api/v1/payments")
            figures = (await http.get("/metrics")).text
        await eventually(lambda: api.lines("logs.left_out"), timeout_s=2 * WINDOW_S)
    assert len(api.lines("http.unreadable")) == REFUSALS_MAX
    answered = api.lines("http.answered")
    assert Counter(line["status"] for line in answered) == {413: REFUSALS_MAX, 401: 2}
    assert len({line["correlation_id"] for line in answered}) == len(answered)
    assert f'payments_http_requests_total{{method="other",route="unknown",status="413"}} {2 * FLOOD}.0' in figures
    assert f'payments_http_requests_total{{method="other",route="unknown",status="400"}} {FLOOD}.0' in figures
