"""The number of connections of a process: who has to go when others come, and how many there may be."""

import asyncio
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from structlog.testing import capture_logs

from api.edge import front
from api.edge.connection_limits import RESERVED_FILES, connections_max
from shared.open_files import LIMIT_OF_MACOS, allow_open_files
from tests.support.fronted import REQUEST, Fronted
from tests.support.raw_http import RawConnection, connected
from tests.support.waiting import eventually

MOST = 16
NEVER = b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has waited for a moment has waited for long."""
    monkeypatch.setattr(front, "ROOM_WAITED_S", 0.0)


@asynccontextmanager
async def full_of(request_bytes: bytes) -> AsyncIterator[tuple[Fronted, list[RawConnection]]]:
    """A front with as many connections as there may be, which have sent this one after the other."""
    fronted = Fronted(connections_max=MOST)
    fronted.front.open()
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(MOST):
            clients.append(await stack.enter_async_context(connected(fronted.url)))
            await clients[-1].send(request_bytes)
            if request_bytes == REQUEST:
                await clients[-1].responses(1)
        await eventually(lambda: len(fronted.front.new) + len(fronted.state.connections) - 1 == MOST)
        yield fronted, clients
    await fronted.end()


async def is_served(fronted: Fronted) -> None:
    async with connected(fronted.url) as payer:
        await payer.send(REQUEST)
        [response] = await payer.responses(1)
    assert response.status == 200


@pytest.mark.usefixtures("soon")
async def test_the_longest_idle_connection_makes_room() -> None:
    async with full_of(REQUEST) as (fronted, clients):
        # The first one is not the longest idle one any more.
        await clients[0].send(REQUEST)
        await clients[0].responses(2)
        with capture_logs() as logs:
            await is_served(fronted)
        assert [response.status for response in await clients[1].until_closed()] == [200]
        paused = {"event": "api.accept_paused", "error": "Too many connections", "pause_s": 0.01, "ended": 1}
        assert logs == [paused | {"log_level": "warning"}]
        for number, client in enumerate(clients):
            if number != 1:
                await client.send(REQUEST)
                await client.responses(3 if number == 0 else 2)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("request_bytes", "statuses"), [(b"", []), (REQUEST[:-2], [503])])
async def test_the_oldest_new_connection_makes_room(request_bytes: bytes, statuses: list[int]) -> None:
    async with full_of(request_bytes) as (fronted, clients):
        await is_served(fronted)
        assert [response.status for response in await clients[0].until_closed()] == statuses
        for client in clients[1:]:
            await client.send(REQUEST.removeprefix(request_bytes))
            [response] = await client.responses(1)
            assert response.status == 200


async def test_a_request_in_progress_makes_no_room() -> None:
    async with full_of(NEVER) as (fronted, clients), connected(fronted.url) as another, connected(fronted.url) as payer:
        with capture_logs() as logs:
            # It has come this moment, and has the time to send something.
            await asyncio.sleep(0.1)
            await another.send(NEVER)
            await payer.send(REQUEST)
            await eventually(lambda: logs)
        assert {(line["event"], line["ended"]) for line in logs} == {("api.accept_paused", 0)}
        for client in clients[:2]:
            await client.close()
        [response] = await payer.responses(1)
        assert response.status == 200
        # The others still have theirs.
        await eventually(lambda: len(fronted.state.connections) - 1 == MOST)


@pytest.mark.parametrize(("files", "most"), [(65_536, 65_536 - RESERVED_FILES), (1024, 768), (256, 128), (64, 32)])
def test_the_service_keeps_files_for_itself(files: int, most: int) -> None:
    assert connections_max(files) == most


def test_a_service_takes_what_macos_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that there is no hard limit, and refuses what is above its own."""
    limits = (256, resource.RLIM_INFINITY)

    def set_limit(_kind: int, wanted: tuple[int, int]) -> None:
        nonlocal limits
        if wanted[0] > LIMIT_OF_MACOS:
            raise ValueError("current limit exceeds maximum limit")
        limits = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _kind: limits)
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    assert allow_open_files(65_536) == LIMIT_OF_MACOS
    assert allow_open_files(100) == LIMIT_OF_MACOS


@pytest.mark.parametrize(("soft", "wanted", "most"), [(64, 100, 100), (64, 500, 200), (64, 32, 64), (200, 200, 200)])
def test_a_service_raises_its_limit_of_open_files_as_far_as_it_may(soft: int, wanted: int, most: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"from shared.open_files import allow_open_files; print(allow_open_files({wanted}))"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, 200)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{most}\n"
