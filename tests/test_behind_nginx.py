"""The API behind a real nginx: requests hidden in others are never executed, and all others are answered right."""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import httpx
import psutil
import pytest

from api.edge.framing import BODY_BYTES_MAX
from api.edge.unread import HEADER_LINES_MAX
from cli.tokens import mint
from shared.config.settings import Settings
from shared.database.engine import Database
from tests.support.nginx import CONFIGURATIONS, Exchange, Nginx
from tests.support.processes import PaymentsProcess, Shop, processes
from tests.support.rows import read_all
from tests.support.smuggling import Disguise
from tests.support.waiting import eventually

# Nothing here depends on the database.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.parametrize("backend", ["sqlite"], indirect=True),
]

REQUEST_TIMEOUT_S = 1.5
# Longer than nginx and the API wait for anything.
CLOSED_S = 30.0
LOGGED_S = 0.3
AT_ONCE = 60
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
FIRST_ORDER = b"o-00000"


@dataclass(slots=True)
class Installation:
    """An API behind nginx, without a worker."""

    api: PaymentsProcess
    nginx: Nginx
    settings: Settings

    def shop(self, configuration: str, user: str = "1") -> Shop:
        """A client that goes through nginx."""
        return Shop(self.settings.model_copy(update={"port": self.nginx.ports[configuration]}), user=user)

    async def send(self, configuration: str, *packets: bytes) -> tuple[int, bytes]:
        """Send these through nginx; return the client's port and all that is answered until nginx closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.nginx.ports[configuration])
        port: int = writer.get_extra_info("sockname")[1]
        answer = b""
        try:
            async with asyncio.timeout(CLOSED_S):
                for packet in packets:
                    writer.write(packet)
                    await writer.drain()
                    await asyncio.sleep(0.02)
                answer = await reader.read(-1)
        except ConnectionError:
            # It has refused the request before it was whole.
            pass
        finally:
            writer.close()
        return port, answer


@pytest.fixture
async def installation(make_settings: Callable[..., Settings], tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(make_settings, tmp_path) as installation:
        yield installation


@asynccontextmanager
async def installed(
    make_settings: Callable[..., Settings], folder: Path, *, keep_alive_s: int = 75
) -> AsyncIterator[Installation]:
    settings = make_settings(request_timeout_s=REQUEST_TIMEOUT_S)
    api = PaymentsProcess("api", folder / "api", settings)
    with processes(api), Nginx(folder / "nginx", settings.port, keep_alive_s=keep_alive_s) as nginx:
        await api.ready()
        yield Installation(api, nginx, settings)


# -- requests hidden in others


def attempts(installation: Installation, method_id: str) -> list[tuple[bytes, ...]]:
    """The packets of each attempt to hide a payment, every payment for an order of its own."""
    token = mint(installation.settings, user="666", role=None, hours=1).encode()
    lines = b"Host: x\r\nContent-Type: application/json\r\nAuthorization: Bearer " + token
    body = b'{"order_id": "%b", "payment_method_id": "%b", "amount": 1585}' % (FIRST_ORDER, method_id.encode())
    length = b"Content-Length: %d" % len(body)
    hidden = b"\r\n".join((b"POST /api/v1/payments HTTP/1.1", lines, length, b"", body))
    found = []
    for number, packets in enumerate(Disguise(lines, hidden).packets()):
        order = b"o-%05d" % number
        found.append(tuple(packet.replace(FIRST_ORDER, order) for packet in packets))
    return found


@asynccontextmanager
async def an_honest_client(installation: Installation, configuration: str) -> AsyncIterator[None]:
    """A client of the same nginx, whose every answer is its own."""
    ended = asyncio.Event()

    async def pay(shop: Shop) -> int:
        count = 0
        while not ended.is_set():
            payment_id = await shop.accepted()
            assert (await shop.payment(payment_id))["id"] == payment_id
            count += 1
        return count

    async with installation.shop(configuration, "2") as shop:
        # This nginx closes idle connections soon.
        shop.http.headers["Connection"] = "close"
        await shop.add_card()
        paying = asyncio.create_task(pay(shop))
        try:
            yield
        finally:
            ended.set()
        assert await paying > 5


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
async def test_a_hidden_request_is_never_executed(
    make_settings: Callable[..., Settings], tmp_path: Path, configuration: str, database: Database
) -> None:
    async with installed(make_settings, tmp_path, keep_alive_s=1) as installation:
        async with installation.shop(configuration, "666") as attacker:
            hostile = attempts(installation, await attacker.add_card())
        turns = asyncio.Semaphore(AT_ONCE)
        answers: dict[int, bytes] = {}

        async def attack(packets: tuple[bytes, ...]) -> None:
            async with turns:
                port, answer = await installation.send(configuration, *packets)
                answers[port] = answers.get(port, b"") + answer

        async with an_honest_client(installation, configuration), asyncio.TaskGroup() as group:
            for packets in hostile:
                group.create_task(attack(packets))
        forwarded = await assert_only_what_nginx_forwarded_was_executed(installation)
        assert len(await read_all(database)) == sum(exchange.upstream_status == 202 for exchange in forwarded)
        assert max(exchange.upstream_status or 0 for exchange in forwarded) < 500
        await assert_metrics_count(installation, len(forwarded))
        exchanges = installation.nginx.exchanges()
    # What nginx itself does not understand is 501 or 505.
    assert {exchange.status for exchange in exchanges if exchange.status >= 500} <= {501, 505}
    # No client got more answers than nginx says.
    requests = Counter(exchange.client_port for exchange in exchanges)
    assert [answer for port, answer in answers.items() if len(final_statuses(answer)) > requests[port]] == []
    print(f"{len(hostile)} attempts, {len(exchanges)} requests")  # noqa: T201


def final_statuses(answer: bytes) -> list[int]:
    return [int(status) for status in STATUS.findall(answer) if status != b"100"]


async def assert_only_what_nginx_forwarded_was_executed(installation: Installation) -> list[Exchange]:
    """Every request in the API's log is one of nginx's, once, and every answer is that to its own request.

    Return what nginx has forwarded and got an answer to.
    """
    api = installation.api

    def forwarded() -> list[Exchange]:
        return [exchange for exchange in installation.nginx.exchanges() if exchange.upstream_status is not None]

    def executed() -> list[tuple[str, int | None]]:
        return sorted((line["correlation_id"], line["status"]) for line in api.lines("http.answered"))

    def own() -> list[tuple[str, int | None]]:
        return sorted((exchange.id, exchange.upstream_status) for exchange in forwarded() if is_own(exchange))

    def is_own(exchange: Exchange) -> bool:
        return exchange.upstream_id == exchange.id

    # Both write a line after the answer.
    await asyncio.sleep(LOGGED_S)
    with contextlib.suppress(AssertionError):
        await eventually(lambda: executed() == own(), 5)
    assert executed() == own()
    # What has no readable head has no correlation id.
    unreadable = [str(exchange.upstream_status) for exchange in forwarded() if not is_own(exchange)]
    assert sorted(unreadable) == sorted(str(line["status"]) for line in api.lines("http.unreadable"))
    assert api.lines("http.defect") == []
    assert "Traceback" not in api.output + api.errors
    return forwarded()


async def assert_metrics_count(installation: Installation, forwarded_count: int) -> None:
    """The API has counted what nginx has forwarded, and no request for /metrics but this one."""
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://127.0.0.1:{installation.settings.port}/metrics")).text
    counted = [line for line in text.splitlines() if line.startswith("payments_http_requests_total{")]
    assert not [line for line in counted if '"/metrics"' in line]
    assert sum(float(line.rpartition(" ")[2]) for line in counted) == forwarded_count


# -- requests that are in order


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
async def test_what_is_in_order_is_answered_right(installation: Installation, configuration: str) -> None:
    async with installation.shop(configuration) as shop, installation.shop(configuration, "2") as other:
        await shop.add_card()
        await other.add_card()
        payment_id = await shop.accepted()
        path = f"/payments/{payment_id}"
        answer = await shop.http.get(path)
        assert answer.json()["id"] == payment_id
        etag = answer.headers["etag"]
        assert (etag, answer.headers.get("content-encoding")) == (
            ('W/"1"', "gzip") if configuration == "gateway" else ('"1"', None)
        )
        unchanged = await shop.http.get(path, headers={"If-None-Match": etag})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        head = await shop.http.head(path)
        assert (head.status_code, head.content) == (200, b"")
        began = monotonic()
        held = await shop.http.get(path, headers={"Prefer": "wait=1"})
        assert monotonic() - began >= 1
        assert (held.json()["id"], held.headers["preference-applied"]) == (payment_id, "wait=1")
        paid_in_time = await shop.pay(headers={"Prefer": "wait=1"})
        assert (paid_in_time.status_code, paid_in_time.json()["status"]) == (202, "PENDING")
        # Both clients share nginx's connections to the API.
        for _ in range(20):
            mine, theirs = await asyncio.gather(shop.accepted(), other.accepted())
            assert (await shop.payment(mine))["user_id"] == "1"
            assert (await other.payment(theirs))["user_id"] == "2"
        kept = [
            connection
            for connection in psutil.Process(installation.nginx.pid).net_connections("tcp")
            if connection.raddr and connection.raddr.port == installation.settings.port
        ]
        assert bool(kept) == (configuration != "plain")
        assert len(kept) <= 4
    await assert_only_what_nginx_forwarded_was_executed(installation)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
async def test_refusals_reach_the_client(installation: Installation, configuration: str) -> None:
    lines = {f"x-{number}": "1" for number in range(HEADER_LINES_MAX + 1)}
    async with installation.shop(configuration) as shop:
        await shop.add_card()

        async def refused(status: int, code: str, size: int, headers: dict[str, str]) -> None:
            answer = await shop.http.post("/payments", content=b" " * size, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (status, code)

        for size in (BODY_BYTES_MAX + 1, 200_000, 900_000):
            await asyncio.gather(*(refused(413, "body_too_large", size, {}) for _ in range(20)))
        await asyncio.gather(*(refused(431, "headers_too_large", 0, lines) for _ in range(20)))
        await asyncio.gather(*(refused(431, "headers_too_large", 900_000, lines) for _ in range(20)))
        assert (await shop.pay()).status_code == 202
    await assert_only_what_nginx_forwarded_was_executed(installation)


async def test_a_body_that_does_not_come_through_nginx_is_408(installation: Installation) -> None:
    token = mint(installation.settings, user="1", role=None, hours=1).encode()
    head = b"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
    for rest in (b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n9\r\n{"):
        _port, answer = await installation.send("gateway", head % token + rest)
        assert final_statuses(answer) == [408]
        assert b'"code":"request_timeout"' in answer


async def test_a_client_that_goes_gives_its_long_poll_back_through_nginx(installation: Installation) -> None:
    async with installation.shop("keepalive") as shop:
        await shop.add_card()
        path = f"/payments/{await shop.accepted()}"
        with pytest.raises(httpx.ReadTimeout):
            await shop.http.get(path, headers={"Prefer": "wait=25"}, timeout=0.3)

        async def is_free() -> bool:
            async with httpx.AsyncClient(trust_env=False) as client:
                text = (await client.get(f"http://127.0.0.1:{installation.settings.port}/metrics")).text
            return "payments_waiters 0.0" in text.splitlines()

        await eventually(is_free, 5)
