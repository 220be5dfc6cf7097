"""What no client library would send, over raw sockets to a real API process, while honest clients pay.

Nothing is answered with a 5xx, nothing accepted is lost, the process does not grow, and no log line holds a secret.
What bodies and parameters may contain is asked in `test_request_bodies`, `test_random_requests` and `test_contract`;
this is about HTTP itself.
"""

import asyncio
import contextlib
import random
import re
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from cli.tokens import mint
from shared.database.engine import Database
from tests.support.api_client import VISA
from tests.support.hostile_requests import CVV, SEED, MakeSettings, Target, malformed, mutated, payment, requests_of
from tests.support.processes import PaymentsProcess, Shop, processes
from tests.support.rows import assert_sound, read_all
from tests.support.waiting import eventually

# What allocators keep; one leaked connection with its buffers is about 20 KB.
GROWTH_BYTES_MAX = 24 * 2**20

# Of the request that a slow client sends, one byte at a time.
SLOW_BYTES = 200
SLOW_CLIENTS = 50


@pytest.fixture
async def target(make_settings: MakeSettings, database: Database, tmp_path: Path) -> AsyncIterator[Target]:
    settings = make_settings(payment_success_rate=1)
    api, worker = (PaymentsProcess(name, tmp_path / name, settings) for name in ("api", "worker"))
    with processes(api, worker):
        await api.ready()
        await worker.ready()
        yield Target(api, worker, settings, mint(settings, user="666", role=None, hours=1))


@asynccontextmanager
async def an_honest_client(target: Target) -> AsyncIterator[list[str]]:
    """A client that pays all the while; at the end of the block every payment of it is completed."""
    paid: list[str] = []
    ended = asyncio.Event()

    async def pay(shop: Shop) -> None:
        while not ended.is_set():
            paid.append(await shop.accepted())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), 0.05)

    async with Shop(target.settings) as shop:
        await shop.add_card()
        paying = asyncio.create_task(pay(shop))
        try:
            yield paid
        finally:
            ended.set()
            await paying

        async def all_completed() -> bool:
            return all([(await shop.payment(payment_id))["status"] == "COMPLETED" for payment_id in paid])

        await eventually(all_completed, 60)


async def send_hostile_requests(target: Target, database: Database, *, mutations: int, rounds: int = 1) -> None:
    """Send all once to warm up, then `rounds` times while an honest client pays, and look at what is left of it."""
    rng = random.Random(SEED)  # noqa: S311 - chosen once, the same in every run
    async with Shop(target.settings, user="666") as attacker:
        originals = requests_of(target, await attacker.add_card())
    fixed = malformed(target)
    await target.send_all(fixed)
    async with an_honest_client(target) as paid:
        await target.send_all([mutated(rng, rng.choice(originals)) for _ in range(mutations)])
        before = target.rss
        for _ in range(rounds):
            await target.send_all(fixed)
            await target.send_all([mutated(rng, rng.choice(originals)) for _ in range(mutations)])
        growth = target.rss - before
    inputs = target.sent.total()
    print(f"{inputs} hostile inputs: {dict(target.sent)}; grown by {growth / 2**20:.1f} MiB")  # noqa: T201
    assert inputs == (rounds + 1) * (len(fixed) + mutations)
    assert growth < GROWTH_BYTES_MAX
    assert paid
    await assert_no_harm_was_done(target, database)


async def assert_no_harm_was_done(target: Target, database: Database) -> None:
    async def all_ended() -> bool:
        return all(payment.status.has_ended for payment in await read_all(database))

    await eventually(all_ended, 30)
    await assert_sound(database)
    for process in (target.api, target.worker):
        assert process.is_running
        assert process.lines("http.defect") == []
        words = process.output + process.errors
        assert not [line for line in words.splitlines() if VISA in line or target.token in line]
        assert not re.search(rf"cvv\W+{CVV}", words)
        assert "Traceback" not in words, words[-5_000:]


async def test_whatever_bytes_arrive_other_clients_are_served(target: Target, database: Database) -> None:
    await send_hostile_requests(target, database, mutations=400)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_twenty_thousand_broken_requests_leave_no_trace(target: Target, database: Database) -> None:
    await send_hostile_requests(target, database, mutations=2_500, rounds=7)


async def test_slow_clients_keep_no_other_client_waiting(target: Target, database: Database) -> None:
    request = payment(target, b"Content-Length: %d" % SLOW_BYTES, body=b" " * SLOW_BYTES)
    slowly = [request[place : place + 1] for place in range(SLOW_BYTES)]
    async with an_honest_client(target) as paid:
        await asyncio.gather(*(target.send(*slowly, pause_s=0.01) for _ in range(SLOW_CLIENTS)))
    assert len(paid) > SLOW_CLIENTS / 10
    await assert_no_harm_was_done(target, database)


@asynccontextmanager
async def idle_connections(target: Target, count: int) -> AsyncIterator[None]:
    """This many connections at once, half of them in the middle of a request."""
    _allow_files(count + 1_000, target)
    writers: list[asyncio.StreamWriter] = []
    try:
        for number in range(count):
            _, writer = await asyncio.open_connection("127.0.0.1", target.settings.port)
            writers.append(writer)
            if number % 2:
                writer.write(b"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\n")
        yield
    finally:
        for writer in writers:
            writer.close()


def _allow_files(files: int, target: Target) -> None:
    """Raise both sides' limit; a machine that does not allow it fails the test, and says so."""
    for pid in (0, target.api.pid):
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        assert hard == resource.RLIM_INFINITY or hard >= files, f"this machine allows {hard} open files, not {files}"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (files if hard == resource.RLIM_INFINITY else hard, hard))


async def hold_idle_connections(target: Target, database: Database, count: int) -> None:
    before = target.rss
    async with idle_connections(target, count), an_honest_client(target) as paid:
        await eventually(lambda: len(paid) >= 20)
        open_now = len(psutil.Process(target.api.pid).net_connections("tcp"))
        assert open_now > count
        held = target.rss - before
    await eventually(lambda: len(psutil.Process(target.api.pid).net_connections("tcp")) < count / 10, 30)
    print(f"{count} idle connections held {held / 2**20:.1f} MiB")  # noqa: T201
    async with idle_connections(target, count):
        pass
    assert target.rss - before < held + GROWTH_BYTES_MAX  # the second time costs nothing more
    await assert_no_harm_was_done(target, database)


async def test_idle_connections_keep_no_client_out(target: Target, database: Database) -> None:
    await hold_idle_connections(target, database, 500)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_ten_thousand_idle_connections_keep_no_client_out(target: Target, database: Database) -> None:
    await hold_idle_connections(target, database, 10_000)
