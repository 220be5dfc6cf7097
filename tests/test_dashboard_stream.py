"""The stream of the overview: it sends figures, ends with its session, and does not hold up the end of the process."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest

from api.dashboard.sessions import SESSION_KEY
from api.dashboard.stream import LOOK_S, VIEWERS_MAX
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, created_key, served
from tests.support.dashboards import bearer, pressed, signed_in

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


@asynccontextmanager
async def watched(running: RunningApi, browser: httpx.AsyncClient) -> AsyncIterator[AsyncIterator[str]]:
    """The lines of a stream of this browser, from its first figures on."""
    async with browser.stream("GET", "/stream") as answer:
        lines = answer.aiter_lines()
        while await anext(lines) != "event: figures":
            pass
        yield lines


async def events(lines: AsyncIterator[str], within_s: float) -> Counter[str]:
    """The names of the events until the stream ends, or within some seconds."""
    found: Counter[str] = Counter()
    try:
        async with asyncio.timeout(within_s):
            async for line in lines:
                found[line] += line.startswith("event: ")
    except TimeoutError:
        found["open"] = 1
    return +found


@pytest.mark.parametrize("end", ["sign-out", "revocation", "loss"])
async def test_a_stream_ends_with_its_session(runtime: Runtime, end: str) -> None:
    async with served(runtime) as running:
        admin = running.admin()
        browser = await signed_in(running, await created_key(admin, name="ops", role="admin"))
        other = await signed_in(running, bearer(running))
        async with watched(running, browser) as lines, watched(running, other) as of_other:
            if end == "sign-out":
                assert (await pressed(browser, "/simulator", "/sign-out")).status_code == 303
            elif end == "revocation":
                [key] = [one for one in (await admin.get("/api-keys")).json()["api_keys"] if one["name"] == "ops"]
                (await admin.delete(f"/api-keys/{key['id']}")).raise_for_status()
            else:
                redis = runtime.broker.arq_connection
                for name in [name async for name in redis.scan_iter(f"{SESSION_KEY}*")]:
                    value = await redis.get(name) or b""
                    if b"ops" in (runtime.keyring.open_session(value.decode()) or b""):
                        await redis.delete(name)
            found = await events(lines, LOOK_S + 4)
            assert (found["event: ended"], found["open"]) == (1, 0)
            # Whose session goes on sees more.
            assert (await events(of_other, 2.5))["event: figures"] >= 1


async def test_while_redis_does_not_say_who_is_signed_in_a_stream_goes_on(runtime: Runtime) -> None:
    async with served(runtime) as running:
        browser = await signed_in(running, bearer(running))
        async with watched(running, browser) as lines:
            await runtime.broker.arq_connection.client_pause(round((LOOK_S + 6) * 1000))
            began, line = time.monotonic(), ""
            async with asyncio.timeout(LOOK_S + 6):
                # The look takes a second.
                while line != "event: figures" or time.monotonic() - began < LOOK_S + 2.5:
                    line = await anext(lines)


async def test_no_more_pages_watch_at_once_than_there_are_places_for(runtime: Runtime) -> None:
    async with served(runtime) as running:
        browser = await signed_in(running, bearer(running))
        browser.timeout = httpx.Timeout(60)
        refused: list[httpx.Response] = []
        open_streams = 0
        has_all = asyncio.Event()

        async def watch() -> None:
            nonlocal open_streams
            async with browser.stream("GET", "/stream") as answer:
                if answer.status_code == 503:
                    refused.append(answer)
                else:
                    open_streams += 1
                if open_streams + len(refused) == VIEWERS_MAX + 5:
                    has_all.set()
                await has_all.wait()

        async with asyncio.timeout(60):
            await asyncio.gather(*(watch() for _ in range(VIEWERS_MAX + 5)))
        assert (open_streams, len(refused)) == (VIEWERS_MAX, 5)
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
