"""The notifications that the simulated gateways send: once, at their moment, signed, and never in anybody's way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from time import monotonic
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from shared.config.settings import Settings, load_settings
from shared.ids import new_id
from shared.keyring import Keyring, open_keyring
from shared.runtime import open_runtime
from shared.simulation.gateways import GatewayName
from shared.upstream.client import UpstreamClient
from tests.support.manual_clock import ManualClock
from tests.support.receivers import Receiver, answering, hanging, receiver, waiting_for
from tests.support.servers import free_port
from tests.support.waiting import eventually
from tests.support.workers import working
from worker.gateway.late_answers import LateAnswer
from worker.gateway.notifier import Notifier, open_notifier

KEYRING: Keyring = open_keyring(load_settings(database_url="sqlite:///x.db"))


def late_answer(*, settles_in_s: float = 0, gateway: str = "paypal_mock", **changes: Any) -> LateAnswer:
    return LateAnswer(
        **{"gateway": gateway, "payment_id": new_id(), "refund_id": None, "settles_in_s": settles_in_s, **changes}
    )


@asynccontextmanager
async def notifying(url: str, *, timeout_s: float = 10, **options: Any) -> AsyncIterator[Notifier]:
    """A notifier that runs until the block ends."""
    client = UpstreamClient("gateway_notifications", url, timeout_s=timeout_s, connections_max=20)
    notifier = Notifier(client, KEYRING, **options)
    running = asyncio.create_task(notifier.run())
    try:
        yield notifier
    finally:
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()


def ids_of(server: Receiver) -> list[str]:
    return [request.event["data"]["payment_id"] for request in server.requests]


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("payments_gateway_notifications_sent_total", {"result": result}) or 0.0


@pytest.mark.parametrize("gateway", GatewayName)
async def test_it_is_sent_once_to_the_path_of_its_gateway_and_signed_with_its_secret(gateway: str) -> None:
    before = counted("accepted")
    async with receiver() as server, notifying(server.url) as notifier:
        answers = [late_answer(gateway=gateway), late_answer(gateway=gateway, refund_id=new_id())]
        for each in answers:
            notifier.schedule(each)
        await eventually(lambda: counted("accepted") == before + 2)
        assert notifier.scheduled == 0
    bodies = [request.verified(KEYRING.notification_secret(gateway)) for request in server.requests]
    payment, refund = sorted(bodies, key=lambda body: str(body["type"]))
    assert payment["type"] == "payment.settled"
    assert payment["data"] == {"gateway": gateway, "payment_id": str(answers[0].payment_id)}
    assert refund["type"] == "refund.settled"
    assert refund["data"] == {
        "gateway": gateway,
        "payment_id": str(answers[1].payment_id),
        "refund_id": str(answers[1].refund_id),
    }
    for request, body in zip(server.requests, bodies, strict=True):
        assert request.path == f"/hook/{gateway}"
        assert request.headers["Content-Type"] == "application/json"
        # It names no outcome.
        assert body.keys() == {"type", "timestamp", "data"}
        assert datetime.fromisoformat(body["timestamp"]).tzinfo
    assert len({request.headers["webhook-id"] for request in server.requests}) == 2


async def test_each_is_sent_at_its_moment_and_not_before() -> None:
    clock = ManualClock()
    async with receiver() as server, notifying(server.url, clock=clock) as notifier:
        late, soon = late_answer(settles_in_s=1000), late_answer(settles_in_s=500)
        notifier.schedule(late)
        notifier.schedule(soon)
        clock.now += 499
        now = late_answer()
        notifier.schedule(now)
        await eventually(lambda: server.requests)
        clock.now += 1
        # A new one that is due makes the notifier look at the clock.
        notifier.schedule(again := late_answer())
        await eventually(lambda: len(server.requests) == 3)
        assert ids_of(server)[0] == str(now.payment_id)
        assert set(ids_of(server)[1:]) == {str(soon.payment_id), str(again.payment_id)}
        assert notifier.scheduled == 1


async def test_the_moment_comes_by_itself() -> None:
    async with receiver() as server, notifying(server.url) as notifier:
        began = monotonic()
        notifier.schedule(late_answer(settles_in_s=60))
        notifier.schedule(late_answer(settles_in_s=0.2))
        await eventually(lambda: server.requests)
        assert monotonic() - began >= 0.2
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_one_that_is_refused_is_not_sent_again(status: int) -> None:
    results = "unreachable" if status == 503 else "refused"
    before = counted(results)
    async with receiver(answering(status)) as server, notifying(server.url) as notifier:
        notifier.schedule(late_answer())
        await eventually(lambda: counted(results) == before + 1)
        await asyncio.sleep(0.05)
        assert len(server.requests) == 1


async def test_nobody_there_is_no_defect_and_later_ones_are_sent() -> None:
    port, before = free_port(), counted("unreachable")
    async with notifying(f"http://127.0.0.1:{port}") as notifier:
        for _ in range(50):
            notifier.schedule(late_answer())
        await eventually(lambda: counted("unreachable") == before + 50)
        assert notifier.scheduled == 0


async def test_a_receiver_that_hangs_takes_its_time_and_no_more_and_holds_up_no_caller() -> None:
    before = counted("unreachable")
    async with receiver(hanging()) as server, notifying(server.url, timeout_s=0.2, in_flight_max=2) as notifier:
        began = monotonic()
        for _ in range(5):
            notifier.schedule(late_answer())
        assert monotonic() - began < 0.1
        await eventually(lambda: len(server.requests) == 2)
        await eventually(lambda: counted("unreachable") == before + 5)
        assert len(server.requests) == 5


async def test_only_so_many_are_sent_at_once() -> None:
    released = asyncio.Event()
    async with receiver(waiting_for(released)) as server, notifying(server.url, in_flight_max=3) as notifier:
        for _ in range(10):
            notifier.schedule(late_answer())
        await eventually(lambda: len(server.requests) == 3)
        await asyncio.sleep(0.05)
        assert len(server.requests) == 3
        released.set()
        await eventually(lambda: len(server.requests) == 10)


async def test_beyond_its_room_nothing_is_scheduled_and_one_line_a_second_says_so() -> None:
    clock, before = ManualClock(), counted("dropped")
    client = UpstreamClient("gateway_notifications", "http://127.0.0.1:9", timeout_s=1, connections_max=1)
    notifier = Notifier(client, KEYRING, scheduled_max=3, clock=clock)
    with capture_logs() as logs:
        for _ in range(10):
            notifier.schedule(late_answer(settles_in_s=60))
        clock.now += 1.5
        notifier.schedule(late_answer())
    assert notifier.scheduled == 3
    assert counted("dropped") == before + 8
    lines = [line["count"] for line in logs if line["event"] == "gateway.notifications_dropped"]
    assert lines == [1, 7]


async def test_at_the_end_what_is_scheduled_or_being_sent_is_dropped_at_once() -> None:
    async with receiver(hanging()) as server:
        async with notifying(server.url) as notifier:
            notifier.schedule(late_answer())
            notifier.schedule(late_answer(settles_in_s=0.3))
            await eventually(lambda: server.requests)
            began = monotonic()
        assert monotonic() - began < 0.3
        await asyncio.sleep(0.4)
        assert len(server.requests) == 1


async def test_without_the_setting_nothing_is_scheduled() -> None:
    notifier = open_notifier(load_settings(database_url="sqlite:///x.db"), KEYRING)
    notifier.schedule(late_answer())
    assert notifier.scheduled == 0
    await notifier.run()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_worker_sends_what_is_scheduled_and_ends_without_it(make_settings: Callable[..., Settings]) -> None:
    async with receiver() as server:
        runtime = open_runtime(make_settings(gateway_notification_url=server.url))
        try:
            async with working(runtime) as worker:
                worker.notifier.schedule(late_answer(gateway="square_mock"))
                worker.notifier.schedule(late_answer(settles_in_s=60))
                [request] = await eventually(lambda: server.requests)
                request.verified(runtime.keyring.notification_secret("square_mock"))
        finally:
            await runtime.close()
    assert len(server.requests) == 1
