"""The pool that delivers, with real receivers on loopback and on both databases."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from prometheus_client import REGISTRY
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from standardwebhooks.webhooks import WebhookVerificationError
from structlog.testing import capture_logs

from shared.config import Settings
from shared.db import Database
from shared.deliveries import RESPONSE_BYTES_MAX, ClaimedDelivery, claim_deliveries, resend
from shared.errors import DatabaseUnavailable
from shared.ids import new_id
from shared.leases import Ref, take_due
from shared.models import deliveries, delivery_attempts, events, webhook_endpoints
from shared.vault import Vault, new_webhook_secret, open_vault
from tests.receivers import (
    Endpoint,
    answering,
    complete_and_claim,
    complete_payments,
    delivery_rows,
    hanging,
    hanging_up,
    receiver,
    redirecting,
    register,
    streaming,
    tripwire,
    waiting_for,
)
from tests.servers import free_port
from tests.waiting import eventually
from worker.deliver import FRESH_S, Deliverer
from worker.lanes import TICKETS_MAX, TICKETS_PER_HOST_MAX, Lanes

type MakeSettings = Callable[..., Settings]


@pytest.fixture
def vault(settings: Settings) -> Vault:
    return open_vault(settings)


@dataclass(slots=True)
class World:
    """A database with endpoints in it, and the means to look."""

    database: Database
    vault: Vault

    async def endpoint(self, url: str, **columns: Any) -> Endpoint:
        async with self.database.transaction() as connection:
            return await register(connection, self.vault, url, now=datetime.now(UTC), **columns)

    async def pay(self, count: int = 1, *, callback_url: str | None = None) -> list[Ref]:
        """Complete payments; the tickets of their deliveries."""
        async with self.database.transaction() as connection:
            now = await self.database.clock.now(connection)
            return await complete_payments(connection, count, now=now, callback_url=callback_url)

    async def pay_and_claim(self, count: int = 1, *, claim_for_s: float = 30) -> list[ClaimedDelivery]:
        """Complete payments; their deliveries, claimed."""
        async with self.database.transaction() as connection:
            now = await self.database.clock.now(connection)
            return await complete_and_claim(connection, count, now=now, claim_for_s=claim_for_s)

    async def relay(self, deliverer: Deliverer) -> None:
        """What the worker's relay does once: bring what is due."""
        async with self.database.transaction() as connection:
            now = await self.database.clock.now(connection)
            due = await take_due(connection, deliveries, now=now, limit=500)
        await deliverer.offer(due)

    async def rows(self, refs: Sequence[Ref]) -> list[Any]:
        async with self.database.read() as connection:
            return await delivery_rows(connection, refs)

    async def attempts(self, ref: Ref) -> list[Any]:
        async with self.database.read() as connection:
            found = await connection.execute(
                select(delivery_attempts)
                .where(delivery_attempts.c.delivery_id == ref.id)
                .order_by(delivery_attempts.c.number)
            )
            return list(found)

    async def until(self, status: str, refs: Sequence[Ref], deliverer: Deliverer | None = None) -> list[Any]:
        """The rows once all have this status; with a deliverer, what becomes due is brought to it meanwhile."""

        async def rows_if_so() -> list[Any]:
            if deliverer is not None:
                await self.relay(deliverer)
            rows = await self.rows(refs)
            return rows if all(row.status == status for row in rows) else []

        return await eventually(rows_if_so)

    async def attempted(self, refs: Sequence[Ref], times: int = 1) -> list[Any]:
        """The rows once each delivery has been attempted so often."""

        async def rows_if_so() -> list[Any]:
            rows = await self.rows(refs)
            return rows if all(row.attempts_made == times for row in rows) else []

        return await eventually(rows_if_so)


@pytest.fixture
def world(database: Database, vault: Vault) -> World:
    return World(database, vault)


@asynccontextmanager
async def running(world: World, settings: Settings, **options: Any) -> AsyncIterator[Deliverer]:
    deliverer = Deliverer(
        options.pop("database", world.database),
        world.vault,
        settings,
        version="tests",
        **{"draw_jitter": lambda: 0.0, **options},
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(deliverer.run())
        try:
            yield deliverer
        finally:
            await deliverer.stop(grace_s=0)


# -- what receivers get


async def test_an_endpoint_gets_exactly_the_events_bytes_signed_with_its_secret(
    world: World, settings: Settings
) -> None:
    async with receiver() as shop, running(world, settings) as deliverer:
        endpoint = await world.endpoint(shop.url)
        [ref] = await world.pay()
        assert await deliverer.offer([ref]) == 1
        [row] = await world.until("delivered", [ref])
        [request] = shop.requests
        async with world.database.read() as connection:
            body = (await connection.execute(select(events.c.body).where(events.c.id == row.event_id))).scalar_one()
    assert request.body == body.encode()
    assert request.verified(endpoint.secret)["type"] == "payment.completed"
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert headers["webhook-id"] == str(ref.id)
    assert (headers["content-type"], headers["user-agent"]) == ("application/json", "payments/tests")
    assert headers["x-correlation-id"] == "order-4711"
    assert "accept-encoding" not in headers
    with pytest.raises(WebhookVerificationError):
        request.verified(new_webhook_secret())


async def test_what_is_taken_over_is_sent_without_another_claim(world: World, settings: Settings) -> None:
    async with receiver() as shop, running(world, settings) as deliverer:
        endpoint = await world.endpoint(shop.url)
        await eventually(lambda: deliverer.has_room)
        claimed = await world.pay_and_claim(3)
        deliverer.take_over(claimed, monotonic())
        rows = await world.until("delivered", [delivery.ref for delivery in claimed])
    assert [(row.attempt, row.tries, row.attempts_made) for row in rows] == [(1, 1, 1)] * 3
    assert {request.headers["webhook-id"] for request in shop.requests} == {str(row.id) for row in rows}
    for request in shop.requests:
        assert request.verified(endpoint.secret)["type"] == "payment.completed"


async def test_what_was_taken_over_too_long_ago_is_claimed_anew(world: World, settings: Settings) -> None:
    """It would be signed with a moment that is over, and its lease might end while it is sent."""
    async with receiver() as shop, running(world, settings) as deliverer:
        await world.endpoint(shop.url)
        await eventually(lambda: deliverer.has_room)
        claimed = await world.pay_and_claim()
        deliverer.take_over(claimed, monotonic() - FRESH_S)
        [row] = await world.until("delivered", [delivery.ref for delivery in claimed])
    assert (row.attempt, row.tries, row.attempts_made) == (2, 1, 1)
    assert len(shop.requests) == 1


async def test_what_is_taken_over_and_never_sent_comes_again_when_its_lease_is_over(
    world: World, settings: Settings
) -> None:
    async with receiver() as shop, running(world, settings) as deliverer:
        await world.endpoint(shop.url)
        [claimed] = await world.pay_and_claim(claim_for_s=0)  # whoever claimed it is dead
        [row] = await world.until("delivered", [claimed.ref], deliverer)
    assert (row.attempt, row.attempts_made, len(shop.requests)) == (2, 1, 1)


async def test_a_callback_is_signed_with_its_owners_secret(world: World, settings: Settings) -> None:
    async with receiver() as client, running(world, settings) as deliverer:
        [ref] = await world.pay(callback_url=client.url)
        await deliverer.offer([ref])
        await world.until("delivered", [ref])
        assert client.requests[0].verified(world.vault.callback_secret("user:1"))["type"] == "payment.completed"


async def test_duplicate_stale_and_unknown_tickets_send_nothing_more(world: World, settings: Settings) -> None:
    async with receiver() as shop, running(world, settings) as deliverer:
        await world.endpoint(shop.url)
        [ref, other] = await world.pay(2)
        await asyncio.gather(*(deliverer.offer([ref, ref, Ref(ref.id, 5), Ref(new_id(), 0)]) for _ in range(5)))
        await deliverer.offer([other])
        await world.until("delivered", [ref, other])
        assert await deliverer.offer([ref, Ref(ref.id, 1), other]) == 0
        await eventually(lambda: deliverer.in_flight == deliverer.queued == 0)
        assert len(shop.requests) == 2
    assert len(await world.attempts(ref)) == 1


async def test_two_workers_with_the_same_tickets_send_each_delivery_once(world: World, settings: Settings) -> None:
    async with receiver() as shop, running(world, settings) as one, running(world, settings) as two:
        await world.endpoint(shop.url)
        refs = await world.pay(50)
        await asyncio.gather(one.offer(refs), two.offer(refs[::-1]))
        await world.until("delivered", refs)
        await eventually(lambda: one.in_flight == two.in_flight == 0)
        assert sorted(request.headers["webhook-id"] for request in shop.requests) == sorted(str(ref.id) for ref in refs)


# -- retries


async def test_two_failures_then_success_are_three_attempts_under_one_webhook_id(
    world: World, settings: Settings
) -> None:
    script = [answering(500, b"oops"), answering(503), answering(200, b"ok")]
    async with receiver(*script) as shop, running(world, settings) as deliverer:
        endpoint = await world.endpoint(shop.url)
        [ref] = await world.pay()
        await deliverer.offer([ref])
        [row] = await world.until("delivered", [ref], deliverer)
        for request in shop.requests:
            request.verified(endpoint.secret)
        assert [request.headers["webhook-id"] for request in shop.requests] == [str(ref.id)] * 3
    attempts = await world.attempts(ref)
    assert [attempt.status_code for attempt in attempts] == [500, 503, 200]
    assert [attempt.response_body for attempt in attempts] == ["oops", "", "ok"]
    assert [attempt.error for attempt in attempts] == ["the receiver answered 500", "the receiver answered 503", None]
    assert (row.attempt, row.tries, row.attempts_made, row.last_error) == (3, 3, 3, None)


async def test_an_exhausted_delivery_is_sent_again_when_asked(world: World, make_settings: MakeSettings) -> None:
    settings = make_settings(webhook_retry_schedule=(0.01,))
    async with receiver(answering(500), answering(500), answering(200)) as shop, running(world, settings) as deliverer:
        await world.endpoint(shop.url)
        [ref] = await world.pay()
        await deliverer.offer([ref])
        await world.until("exhausted", [ref], deliverer)
        assert len(shop.requests) == 2
        async with world.database.transaction() as connection:
            ticket = await resend(connection, await world.database.clock.now(connection), ref.id)
        assert ticket is not None
        await deliverer.offer([ticket])
        [row] = await world.until("delivered", [ref])
    assert (row.tries, row.attempts_made) == (1, 3)


async def test_too_many_requests_comes_back_when_the_receiver_says(world: World, make_settings: MakeSettings) -> None:
    settings = make_settings(webhook_retry_schedule=(1, 1000))
    async with receiver(answering(429, headers={"retry-after": "90"})) as shop, running(world, settings) as deliverer:
        await world.endpoint(shop.url)
        [ref] = await world.pay()
        await deliverer.offer([ref])
        [row] = await world.attempted([ref])
    assert (row.status, row.due_at - row.updated_at) == ("pending", timedelta(seconds=90))


async def test_a_connection_that_breaks_at_once_is_tried_once_more_in_the_same_attempt(
    world: World, settings: Settings
) -> None:
    async with receiver(hanging_up(), answering(200)) as shop, running(world, settings) as deliverer:
        await world.endpoint(shop.url)
        [ref] = await world.pay()
        await deliverer.offer([ref])
        await world.until("delivered", [ref])
        assert len(shop.requests) == 2
    [attempt] = await world.attempts(ref)
    assert (attempt.status_code, attempt.error) == (200, None)


async def test_a_connection_that_keeps_breaking_fails(world: World, make_settings: MakeSettings) -> None:
    async with receiver(hanging_up()) as shop, running(world, make_settings(webhook_retry_schedule=())) as deliverer:
        await world.endpoint(shop.url)
        [ref] = await world.pay()
        await deliverer.offer([ref])
        [row] = await world.until("exhausted", [ref])
        assert len(shop.requests) == 2
    assert row.last_error == "the connection broke (ServerDisconnectedError)"


async def test_a_receiver_that_is_not_there_is_a_failure(world: World, make_settings: MakeSettings) -> None:
    async with running(world, make_settings(webhook_retry_schedule=())) as deliverer:
        await world.endpoint(f"http://127.0.0.1:{free_port()}/")
        [ref] = await world.pay()
        await deliverer.offer([ref])
        [row] = await world.until("exhausted", [ref])
    assert row.last_error.startswith("could not connect: ")
    [attempt] = await world.attempts(ref)
    assert (attempt.status_code, attempt.response_body) == (None, "")


async def test_a_receiver_that_says_nothing_fails_at_the_timeout(world: World, make_settings: MakeSettings) -> None:
    settings = make_settings(webhook_timeout=0.2, webhook_retry_schedule=())
    async with receiver(hanging()) as shop, running(world, settings) as deliverer:
        await world.endpoint(shop.url)
        [ref] = await world.pay()
        await deliverer.offer([ref])
        [row] = await world.until("exhausted", [ref])
        assert len(shop.requests) == 1
    [attempt] = await world.attempts(ref)
    assert row.last_error == "no answer in time"
    assert attempt.duration_ms >= 200


# -- what receivers may not do


async def test_a_redirect_is_a_failure_and_is_not_followed(world: World, make_settings: MakeSettings) -> None:
    async with tripwire() as (private_url, contacts), receiver(redirecting(private_url)) as shop:
        async with running(world, make_settings(webhook_retry_schedule=())) as deliverer:
            await world.endpoint(shop.url)
            [ref] = await world.pay()
            await deliverer.offer([ref])
            [row] = await world.until("exhausted", [ref])
        assert row.last_error == "the receiver answered 307; redirects are not followed"
        assert contacts == []
        assert len(shop.requests) == 1


async def test_a_huge_answer_is_read_up_to_its_cap(world: World, settings: Settings) -> None:
    async with receiver(streaming(200, b"x" * 65_536)) as shop, running(world, settings) as deliverer:
        await world.endpoint(shop.url)
        [ref] = await world.pay()
        await deliverer.offer([ref])
        await world.until("delivered", [ref])
    [attempt] = await world.attempts(ref)
    assert attempt.response_body == "x" * RESPONSE_BYTES_MAX


async def test_a_dripping_answer_ends_at_the_timeout_and_its_status_counts(
    world: World, make_settings: MakeSettings
) -> None:
    settings = make_settings(webhook_timeout=0.3)
    async with receiver(streaming(200, b"drip ", pause_s=0.05)) as shop, running(world, settings) as deliverer:
        await world.endpoint(shop.url)
        [ref] = await world.pay()
        await deliverer.offer([ref])
        await world.until("delivered", [ref])
    [attempt] = await world.attempts(ref)
    assert attempt.response_body.startswith("drip drip")
    assert attempt.duration_ms >= 300


async def test_a_packed_answer_is_not_unpacked(world: World, settings: Settings) -> None:
    bomb = answering(200, b"\x1f\x8b not really gzip", {"content-encoding": "gzip"})
    async with receiver(bomb) as shop, running(world, settings) as deliverer:
        await world.endpoint(shop.url)
        [ref] = await world.pay()
        await deliverer.offer([ref])
        await world.until("delivered", [ref])
    [attempt] = await world.attempts(ref)
    assert attempt.response_body == "\x1f\ufffd not really gzip"


class PrivateResolver(AbstractResolver):
    """Leads every name to 127.0.0.1."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        address = {"hostname": host, "host": "127.0.0.1", "family": family or socket.AF_INET}
        return [ResolveResult(port=port, proto=0, flags=0, **address)]  # type: ignore[typeddict-item]

    async def close(self) -> None:
        """Nothing to close."""


async def test_a_cookie_is_not_kept(world: World, settings: Settings) -> None:
    cookie = answering(200, headers={"set-cookie": "a=b"})
    async with receiver(cookie) as shop, running(world, settings, resolver=PrivateResolver()) as deliverer:
        await world.endpoint(shop.url.replace("127.0.0.1", "shop.example"))  # a jar keeps nothing of an address
        for _ in range(2):
            [ref] = await world.pay()
            await deliverer.offer([ref])
            await world.until("delivered", [ref])
        assert not any("cookie" in name.lower() for request in shop.requests for name in request.headers)


async def test_a_name_that_leads_to_a_private_address_is_refused_at_the_connection(
    world: World, make_settings: MakeSettings
) -> None:
    settings = make_settings(webhook_allowed_networks="10.9.9.0/24", webhook_retry_schedule=())
    async with tripwire() as (private_url, contacts):
        async with running(world, settings, resolver=PrivateResolver()) as deliverer:
            await world.endpoint(private_url.replace("127.0.0.1", "shop.example"))
            [ref] = await world.pay()
            await deliverer.offer([ref])
            [row] = await world.until("exhausted", [ref])
        assert contacts == []
    assert row.last_error == "the URL leads to an address that deliveries may not reach"
    assert [attempt.status_code for attempt in await world.attempts(ref)] == [None]


async def test_our_own_ports_are_refused(world: World, make_settings: MakeSettings) -> None:
    async with receiver() as ourselves:
        settings = make_settings(port=ourselves.port, webhook_retry_schedule=())
        async with running(world, settings) as deliverer:
            await world.endpoint(ourselves.url)
            [ref] = await world.pay()
            await deliverer.offer([ref])
            await world.until("exhausted", [ref])
        assert ourselves.requests == []


async def test_gone_disables_the_endpoint_and_ends_its_deliveries(world: World, make_settings: MakeSettings) -> None:
    settings = make_settings(webhook_concurrency=1)
    async with receiver(answering(410)) as shop, running(world, settings) as deliverer:
        endpoint = await world.endpoint(shop.url)
        refs = await world.pay(5)
        await deliverer.offer(refs)
        await eventually(lambda: deliverer.queued == deliverer.in_flight == 0)
        assert len(shop.requests) == 1
        assert await world.pay() == []
    assert [row.status for row in await world.rows(refs)] == ["exhausted", *["cancelled"] * 4]
    async with world.database.read() as connection:
        row = (await connection.execute(select(webhook_endpoints).where(webhook_endpoints.c.id == endpoint.id))).one()
    assert (row.enabled, row.disabled_reason) == (False, "the receiver answered 410 Gone")


async def test_an_endpoint_disabled_after_the_event_gets_nothing(world: World, settings: Settings) -> None:
    async with receiver() as shop, running(world, settings) as deliverer:
        endpoint = await world.endpoint(shop.url)
        [ref] = await world.pay()
        await _disable(world, endpoint)
        await deliverer.offer([ref])
        await world.until("cancelled", [ref])
        await eventually(lambda: deliverer.in_flight == 0)
        assert shop.requests == []


async def _disable(world: World, endpoint: Endpoint) -> None:
    async with world.database.transaction() as connection:
        await connection.execute(
            update(webhook_endpoints).where(webhook_endpoints.c.id == endpoint.id).values(enabled=False)
        )


async def test_a_secret_that_cannot_be_decrypted_fails_that_endpoint_only(
    world: World, make_settings: MakeSettings
) -> None:
    old_vault = open_vault(make_settings(data_key="another key that was in use before this one"))
    async with receiver() as shop, running(world, make_settings(webhook_retry_schedule=())) as deliverer:
        await world.endpoint(shop.url, secret=old_vault.encrypt(new_webhook_secret()))
        [broken] = await world.pay()
        healthy = await world.endpoint(shop.url)
        refs = await world.pay()
        [fine] = [ref for ref, row in zip(refs, await world.rows(refs), strict=True) if row.endpoint_id == healthy.id]
        await deliverer.offer([broken, fine])
        [row] = await world.until("exhausted", [broken])
        await world.until("delivered", [fine])
    assert "DATA_KEY" in row.last_error


# -- slots


async def test_a_hanging_receiver_delays_nobody_else(world: World, make_settings: MakeSettings) -> None:
    settings = make_settings(webhook_concurrency=6, webhook_concurrency_per_host=4)
    async with receiver(hanging()) as dead, receiver() as alive, running(world, settings) as deliverer:
        await world.endpoint(dead.url)
        to_dead = await world.pay(20)
        to_alive = [ref for ref in await world.pay(20, callback_url=alive.url) if ref not in to_dead]
        callbacks = [row.id for row in await world.rows(to_alive) if row.kind == "callback"]
        await deliverer.offer([*to_dead, *to_alive])
        await world.until("delivered", [ref for ref in to_alive if ref.id in callbacks])
        await eventually(lambda: len(dead.requests) == deliverer.in_flight == 4)
        assert deliverer.queued == 36


async def test_no_host_gets_more_than_its_slots(world: World, make_settings: MakeSettings) -> None:
    released = asyncio.Event()
    settings = make_settings(webhook_concurrency=10, webhook_concurrency_per_host=3)
    async with receiver(waiting_for(released)) as shop, running(world, settings) as deliverer:
        await world.endpoint(shop.url)
        refs = await world.pay(12)
        await deliverer.offer(refs)
        await eventually(lambda: len(shop.requests) == 3)
        assert (deliverer.in_flight, deliverer.queued) == (3, 9)
        released.set()
        await world.until("delivered", refs)
        await eventually(lambda: deliverer.in_flight == 0)
        assert len(shop.requests) == 12


def a_ticket(attempt: int = 0) -> Ref:
    return Ref(new_id(), attempt)


def taken(lanes: Lanes) -> list[str]:
    """The hosts that get a turn until all slots are taken."""
    hosts = []
    while turn := lanes.take():
        hosts.append(turn[0])
    return hosts


def test_lanes_take_turns() -> None:
    lanes = Lanes(slots_per_host=10)
    for host in ("a", "a", "a", "b", "c", "c"):
        assert lanes.put(host, a_ticket())
    assert len(lanes) == 6
    assert taken(lanes) == ["a", "b", "c", "a", "c", "a"]
    assert len(lanes) == 0


def test_a_lane_without_a_slot_is_passed_over_until_one_is_given_back() -> None:
    lanes = Lanes(slots_per_host=2)
    for host in ("a", "a", "a", "a", "b"):
        lanes.put(host, a_ticket())
    assert taken(lanes) == ["a", "b", "a"]
    lanes.finish("a", was_slow=False)
    assert taken(lanes) == ["a"]
    lanes.finish("a", was_slow=False)
    lanes.finish("a", was_slow=False)
    assert taken(lanes) == ["a"]


def test_a_newer_ticket_takes_the_place_of_an_older_one() -> None:
    lanes = Lanes(slots_per_host=2)
    old, new = a_ticket(), a_ticket()
    newer = Ref(old.id, 3)
    for ref in (old, new, newer, old):
        assert lanes.put("a", ref)
    assert [lanes.take(), lanes.take(), lanes.take()] == [("a", newer), ("a", new), None]


def test_lanes_are_bounded_each_and_together() -> None:
    lanes = Lanes(slots_per_host=1)
    assert [lanes.put("a", a_ticket()) for _ in range(TICKETS_PER_HOST_MAX + 1)].count(True) == len(lanes)
    assert len(lanes) == TICKETS_PER_HOST_MAX
    for number in range(TICKETS_MAX):
        lanes.put(str(number), a_ticket())
    assert len(lanes) == TICKETS_MAX
    assert not lanes.put("z", a_ticket())


def test_a_slow_host_keeps_few_slots_until_it_answers_sooner() -> None:
    lanes = Lanes(slots_per_host=20)
    for _ in range(100):
        lanes.put("slow", a_ticket())
    assert len(taken(lanes)) == 20
    for _ in range(20):
        lanes.finish("slow", was_slow=True)
    assert len(taken(lanes)) == 2
    lanes.finish("slow", was_slow=False)
    assert len(taken(lanes)) == 19
    lanes.finish("slow", was_slow=None)
    assert len(taken(lanes)) == 1


def test_nothing_is_kept_of_a_host_that_is_done_with() -> None:
    lanes = Lanes(slots_per_host=1)
    lanes.put("a", a_ticket())
    lanes.take()
    lanes.finish("a", was_slow=True)
    assert not any((lanes._waiting, lanes._taken, lanes._slow, lanes._turns))


# -- leases, shutdown, trouble


async def test_a_record_after_the_lease_was_lost_changes_nothing(world: World, settings: Settings) -> None:
    released = asyncio.Event()
    async with receiver(waiting_for(released)) as shop, running(world, settings) as deliverer:
        await world.endpoint(shop.url)
        [ref] = await world.pay()
        await deliverer.offer([ref])
        await eventually(lambda: shop.requests)
        async with world.database.transaction() as connection:
            await _let_leases_run_out(connection)
            now = await world.database.clock.now(connection)
            assert await claim_deliveries(connection, now, [Ref(ref.id, 1)], lease_s=30) != [None]
        with capture_logs() as logs:
            released.set()
            await eventually(lambda: deliverer.in_flight == 0)
    assert [line["event"] for line in logs] == ["delivery.superseded"]
    [row] = await world.rows([ref])
    assert (row.status, row.attempt, row.attempts_made) == ("sending", 2, 0)
    assert await world.attempts(ref) == []


async def test_a_crashed_workers_delivery_is_sent_when_its_lease_has_ended(world: World, settings: Settings) -> None:
    async with receiver() as shop:
        await world.endpoint(shop.url)
        [ref] = await world.pay()
        async with world.database.transaction() as connection:
            now = await world.database.clock.now(connection)
            await claim_deliveries(connection, now, [ref], lease_s=30)
            await _let_leases_run_out(connection)
        async with running(world, settings) as deliverer:
            [row] = await world.until("delivered", [ref], deliverer)
    assert (row.attempt, row.tries) == (2, 1)


async def _let_leases_run_out(connection: AsyncConnection) -> None:
    await connection.execute(update(deliveries).values(due_at=datetime(2026, 1, 1, tzinfo=UTC)))


async def test_a_shutdown_releases_what_is_being_sent_uncounted(world: World, settings: Settings) -> None:
    async with receiver(hanging()) as shop:
        await world.endpoint(shop.url)
        refs = await world.pay(5)
        async with running(world, settings) as deliverer:
            await deliverer.offer(refs)
            await eventually(lambda: len(shop.requests) == 5)
            await deliverer.stop(grace_s=0)
            assert deliverer.in_flight == 0
            assert await deliverer.offer(refs) == 0
        rows = await world.rows(refs)
        assert [(row.status, row.tries, row.attempts_made) for row in rows] == [("pending", 0, 0)] * 5
        shop.script[:] = [answering(200)]
        async with running(world, settings) as successor:
            await world.until("delivered", refs, successor)


async def test_a_shutdown_releases_what_was_taken_over_and_waits(world: World, settings: Settings) -> None:
    async with receiver(hanging()) as shop:
        await world.endpoint(shop.url)
        settings = settings.model_copy(update={"webhook_concurrency": 1})
        async with running(world, settings) as deliverer:
            await eventually(lambda: deliverer.has_room)
            claimed = await world.pay_and_claim(3)
            deliverer.take_over(claimed[:2], monotonic())
            await eventually(lambda: len(shop.requests) == 1)
            stopping = asyncio.create_task(deliverer.stop(grace_s=0.1))
            await eventually(deliverer._stopping.is_set)
            assert not deliverer.has_room
            deliverer.take_over(claimed[2:], monotonic())  # was being recorded when the stop came
            await stopping
        rows = await world.rows([delivery.ref for delivery in claimed])
        assert [(row.status, row.tries) for row in rows] == [("pending", 0)] * 3


async def test_a_shutdown_lets_open_sends_finish_within_the_grace(world: World, settings: Settings) -> None:
    released = asyncio.Event()
    async with receiver(waiting_for(released)) as shop, running(world, settings) as deliverer:
        await world.endpoint(shop.url)
        [ref] = await world.pay()
        await deliverer.offer([ref])
        await eventually(lambda: shop.requests)
        stopping = asyncio.create_task(deliverer.stop(grace_s=10))
        await eventually(deliverer._stopping.is_set)
        released.set()
        await stopping
    [row] = await world.rows([ref])
    assert (row.status, row.attempts_made) == ("delivered", 1)


async def test_stopping_a_deliverer_that_never_ran_returns(world: World, settings: Settings) -> None:
    await Deliverer(world.database, world.vault, settings, version="tests").stop(grace_s=1)


class Switchable(Database):
    """The database behind a switch."""

    is_on = True

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        if not self.is_on:
            raise DatabaseUnavailable("switched off")
        async with super().transaction() as connection:
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        if not self.is_on:
            raise DatabaseUnavailable("switched off")
        async with super().read() as connection:
            yield connection


async def test_a_ticket_that_meets_a_database_outage_is_dropped_and_comes_again(
    world: World, settings: Settings
) -> None:
    database = Switchable(world.database._engine)
    async with receiver() as shop, running(world, settings, database=database) as deliverer:
        await world.endpoint(shop.url)
        [ref, other] = await world.pay(2)
        database.is_on = False
        assert await deliverer.offer([ref]) == 0
        database.is_on = True
        await deliverer.offer([other])
        database.is_on = False  # after the look at the host, before the claim
        with capture_logs() as logs:
            await eventually(lambda: deliverer.in_flight == deliverer.queued == 0)
        assert [line["event"] for line in logs] == ["group_commit.failed", "delivery.ticket_dropped"]
        assert shop.requests == []
        database.is_on = True
        assert await deliverer.offer([ref, other]) == 2
        await world.until("delivered", [ref, other])


async def test_an_attempt_is_recorded_when_the_database_is_back_and_not_sent_again(
    world: World, settings: Settings
) -> None:
    database, released = Switchable(world.database._engine), asyncio.Event()
    async with (
        receiver(waiting_for(released)) as shop,
        running(world, settings, database=database) as deliverer,
    ):
        await world.endpoint(shop.url)
        [ref] = await world.pay()
        await deliverer.offer([ref])
        await eventually(lambda: shop.requests)
        with capture_logs() as logs:
            database.is_on = False
            released.set()
            await eventually(lambda: [line for line in logs if line["event"] == "group_commit.failed"])
            assert deliverer.in_flight == 1
            database.is_on = True
            await world.until("delivered", [ref])
        assert len(shop.requests) == 1


async def test_a_bug_in_one_delivery_does_not_end_the_others(world: World, settings: Settings) -> None:
    bugs = [ZeroDivisionError()]

    def draw() -> float:
        if bugs:
            raise bugs.pop()
        return 0.0

    async with receiver() as shop, running(world, settings, draw_jitter=draw) as deliverer:
        await world.endpoint(shop.url)
        refs = await world.pay(3)
        with capture_logs() as logs:
            await deliverer.offer(refs)
            await eventually(lambda: len(shop.requests) == 3 and deliverer.in_flight == 0)
    assert sorted(row.status for row in await world.rows(refs)) == ["delivered", "delivered", "sending"]
    assert [line["event"] for line in logs].count("delivery.crashed") == 1


# -- what is told


async def test_log_lines_name_the_delivery_and_hold_no_secret_and_no_body(
    world: World, make_settings: MakeSettings
) -> None:
    settings = make_settings(webhook_retry_schedule=(0.01,))
    async with receiver(answering(500, b"receiver's words")) as shop, running(world, settings) as deliverer:
        endpoint = await world.endpoint(shop.url)
        [ref] = await world.pay()
        with capture_logs() as logs:
            await deliverer.offer([ref])
            [row] = await world.until("exhausted", [ref], deliverer)
            await eventually(lambda: deliverer.in_flight == 0)  # the line follows the commit
    lines = [line for line in logs if line["event"].startswith("delivery.")]
    assert [line["event"] for line in lines] == ["delivery.failed", "delivery.exhausted"]
    for number, line in enumerate(lines, start=1):
        assert (line["delivery_id"], line["payment_id"]) == (str(ref.id), str(row.payment_id))
        assert (line["correlation_id"], line["attempt"], line["status_code"]) == ("order-4711", number, 500)
    told = repr(logs)
    assert endpoint.secret not in told
    assert "receiver's words" not in told
    assert "Zwölf" not in told
    assert "/hook" not in told


async def test_attempts_are_counted_by_outcome(world: World, make_settings: MakeSettings) -> None:
    settings = make_settings(webhook_retry_schedule=(0.01,))
    before = {word: _counted(word) for word in ("delivered", "failed", "exhausted", "gone")}
    async with receiver(answering(500), answering(204)) as shop, running(world, settings) as deliverer:
        await world.endpoint(shop.url)
        [ref] = await world.pay()
        await deliverer.offer([ref])
        await world.until("delivered", [ref], deliverer)
        await eventually(lambda: deliverer.in_flight == 0)
    assert {word: _counted(word) - count for word, count in before.items()} == {
        "delivered": 1,
        "failed": 1,
        "exhausted": 0,
        "gone": 0,
    }


def _counted(word: str) -> float:
    labels = {"kind": "endpoint", "outcome": word}
    return REGISTRY.get_sample_value("payments_delivery_attempts_total", labels) or 0.0
