"""The stream of the overview in the real server: it sends figures, and does not hold up the end of the process."""

import asyncio
import time

import orjson
import pytest

from shared.runtime import Runtime
from tests.support.api_client import served
from tests.support.dashboards import bearer, signed_in

pytest_plugins = ["tests.support.api_fixtures"]
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

ENDS_WITHIN_S = 5
# Headers about a body that a HEAD has not.
BODY = {"transfer-encoding", "content-length"}


async def test_a_stream_sends_figures_and_ends_with_the_process(runtime: Runtime) -> None:
    stop = asyncio.Event()
    async with served(runtime, stop) as running:
        browser = await signed_in(running, bearer(running))
        async with asyncio.timeout(ENDS_WITHIN_S):
            head = await browser.head("/stream")
        async with browser.stream("GET", "/stream") as answer:
            assert head.status_code == answer.status_code == 200
            assert head.headers.keys() - BODY == answer.headers.keys() - BODY
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert answer.headers["x-accel-buffering"] == "no"
            lines = answer.aiter_lines()
            assert await anext(lines) == "event: before"
            while await anext(lines) != "event: figures":
                pass
            figures = orjson.loads((await anext(lines)).removeprefix("data: "))
            assert figures["queue_depth"] == 0
            assert figures["unwell"] == []
            stop.set()
            stopped_at = time.monotonic()
            async for _ in lines:
                pass
            assert time.monotonic() - stopped_at < ENDS_WITHIN_S
