"""A worker that hears of jobs takes them at once, and otherwise asks Redis for some now and then."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from arq.constants import in_progress_key_prefix
from structlog.testing import capture_logs

from shared.broker.client import PUBLISHED_CHANNEL, Broker, Queue, open_broker
from shared.database.leases import WorkItem
from shared.ids import new_id
from tests.support.servers import ValkeyServer
from tests.support.waiting import eventually
from worker import arq_loop, queue_watch
from worker.arq_loop import JOBS_MAX, JobLoop
from worker.queue_watch import QueueNews, QueueWatch

# Polls of a loop that is told of nothing must not be what finds a job.
NEVER_S = 600.0


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@asynccontextmanager
async def listening(
    broker: Broker, url: str, taken: list[WorkItem], gate: Callable[[], int] = lambda: JOBS_MAX
) -> AsyncIterator[JobLoop]:
    """A loop that listens, and has seen that there is nothing in its queue."""

    async def job(items: list[WorkItem], _score_ms: int) -> None:
        taken.extend(items)

    watch = QueueWatch(broker)
    news = watch.news_of(Queue.PROCESS)
    loop = JobLoop(url, Queue.PROCESS, job, poll_delay_ms=20, gate=gate, news=news)
    running = [asyncio.create_task(watch.run()), asyncio.create_task(loop.run())]
    try:
        await eventually(lambda: news.is_live)
        await eventually(lambda: loop.is_polling and (not gate() or not news.may_have_jobs))
        yield loop
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


def some_items(count: int) -> list[WorkItem]:
    return [WorkItem(new_id(), 0) for _ in range(count)]


async def test_a_published_job_is_taken_without_waiting_for_the_next_poll(
    broker: Broker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arq_loop, "QUIET_S", NEVER_S)
    taken: list[WorkItem] = []
    async with listening(broker, redis_url, taken):
        first, second = some_items(1), some_items(2)
        assert await broker.publish(Queue.PROCESS, first)
        await eventually(lambda: taken == first)
        assert await broker.publish(Queue.PROCESS, second)
        await eventually(lambda: taken == first + second)


async def test_all_jobs_are_taken_when_there_are_more_than_run_at_once(
    broker: Broker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arq_loop, "QUIET_S", NEVER_S)
    taken: list[WorkItem] = []
    items = some_items(2 * JOBS_MAX + 1)
    async with listening(broker, redis_url, taken, gate=lambda: 1):
        await asyncio.gather(*(broker.publish(Queue.PROCESS, [item]) for item in items))
        await eventually(lambda: len(taken) == len(items))
    assert set(taken) == set(items)


async def test_a_job_that_comes_while_no_slot_is_free_is_taken_when_one_is(
    broker: Broker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arq_loop, "QUIET_S", NEVER_S)
    taken: list[WorkItem] = []
    free = 0
    async with listening(broker, redis_url, taken, gate=lambda: free):
        items = some_items(1)
        assert await broker.publish(Queue.PROCESS, items)
        await asyncio.sleep(0.2)
        assert taken == []
        free = 1
        await eventually(lambda: taken == items)


@pytest.mark.parametrize("count", [JOBS_MAX + 2, 150, 300])
async def test_jobs_that_run_elsewhere_hide_none_and_are_not_looked_at_all_the_time(
    broker: Broker, redis_url: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(arq_loop, "QUIET_S", NEVER_S)
    looks: list[QueueNews] = []
    begin_look = QueueNews.begin_look

    def counted(news: QueueNews) -> None:
        looks.append(news)
        begin_look(news)

    monkeypatch.setattr(QueueNews, "begin_look", counted)
    members = [f"{number:032x}" for number in range(count)]
    now_s, _ = await broker.arq_connection.time()
    await broker.arq_connection.zadd(Queue.PROCESS, dict.fromkeys(members, now_s * 1000.0 - 60_000))
    await broker.arq_connection.mset({in_progress_key_prefix + member: "1" for member in members})
    taken: list[WorkItem] = []
    async with listening(broker, redis_url, taken):
        looks.clear()
        items = some_items(1)
        assert await broker.publish(Queue.PROCESS, items)
        await eventually(lambda: taken == items)
        await asyncio.sleep(0.5)
    # A look for each page of a hundred, one more that finds them all, and as many for what came meanwhile.
    assert len(looks) <= 2 * (count // 100 + 2)


async def test_a_job_whose_message_is_lost_is_found_by_a_poll(broker: Broker, redis_url: str) -> None:
    taken: list[WorkItem] = []
    item = WorkItem(new_id(), 0)
    async with listening(broker, redis_url, taken):
        payload = [[str(item.id), item.lease_version]]
        await broker.arq_connection.enqueue_job(Queue.PROCESS.job, payload, _queue_name=Queue.PROCESS)
        await eventually(lambda: taken == [item])


async def test_a_quiet_loop_asks_seldom_and_other_messages_change_nothing(own: ValkeyServer) -> None:
    async def polls() -> int:
        stats = await own_broker.arq_connection.info("commandstats")
        calls: int = stats["cmdstat_zrangebyscore"]["calls"]
        return calls

    own_broker = open_broker(own.url)
    async with listening(own_broker, own.url, []):
        before = await polls()
        for message in (Queue.REFUND, "", "payments:process:", b"\xff"):
            await own_broker.arq_connection.publish(PUBLISHED_CHANNEL, message)
        await asyncio.sleep(1)
        # Five, and some 140 without the subscription.
        assert await polls() - before < 20
    await own_broker.close()


async def test_a_lost_subscription_is_made_again(own: ValkeyServer) -> None:
    taken: list[WorkItem] = []
    own_broker = open_broker(own.url)
    with capture_logs() as logs:
        async with listening(own_broker, own.url, taken):
            own.kill()
            await eventually(lambda: any(line["event"] == "jobs.subscription_lost" for line in logs))
            own.start()
            item = WorkItem(new_id(), 0)
            await eventually(lambda: own_broker.publish(Queue.PROCESS, [item]))
            await eventually(lambda: item in taken, 20)
            await eventually(lambda: hears(own_broker), 20)
    await own_broker.close()


async def hears(broker: Broker) -> bool:
    [(_channel, count)] = await broker.arq_connection.pubsub_numsub(PUBLISHED_CHANNEL)
    return bool(count)


async def test_without_a_subscription_the_loop_polls_often(
    broker: Broker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((arq_loop, "QUIET_S"), (queue_watch, "RECONNECT_S")):
        monkeypatch.setattr(module, name, NEVER_S)
    taken: list[WorkItem] = []
    with capture_logs() as logs:
        async with listening(broker, redis_url, taken):
            await broker.round_trip(lambda pipe: pipe.client_kill_filter(_type="pubsub"), timeout_s=1)
            await eventually(lambda: any(line["event"] == "jobs.subscription_lost" for line in logs))
            item = WorkItem(new_id(), 0)
            assert await broker.publish(Queue.PROCESS, [item])
            await eventually(lambda: taken == [item])


async def test_a_forbidden_channel_is_said_once_and_jobs_are_published(own: ValkeyServer) -> None:
    own_broker = open_broker(own.url)
    await own_broker.arq_connection.execute_command("ACL", "SETUSER", "default", "resetchannels")  # type: ignore[no-untyped-call]
    with capture_logs() as logs:
        for item in some_items(3):
            assert await own_broker.publish(Queue.PROCESS, [item])
    assert await own_broker.arq_connection.zcard(Queue.PROCESS) == 3
    refused = [line for line in logs if line["event"] == "broker.notification_refused"]
    assert len(refused) == 1
    assert PUBLISHED_CHANNEL in refused[0]["error"]
    await own_broker.close()
