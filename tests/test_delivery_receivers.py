"""What a receiver's answer, or its silence, makes of a delivery, and what no receiver can make the pool do."""

from datetime import timedelta

from sqlalchemy import select, update

from shared.config.settings import Settings
from shared.database.tables import webhook_endpoints
from shared.keyring import new_webhook_secret, open_keyring
from shared.webhooks.attempts import RESPONSE_BYTES_MAX
from shared.webhooks.resend import resend
from tests.support.delivery_pools import MakeSettings, World, running
from tests.support.receivers import (
    Endpoint,
    answering,
    hanging,
    hanging_up,
    receiver,
    redirecting,
    streaming,
    tripwire,
)
from tests.support.resolvers import FixedResolver
from tests.support.servers import free_port
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.delivery_fixtures"]

# -- retries


async def test_two_failures_then_success_are_three_attempts_under_one_webhook_id(
    world: World, settings: Settings
) -> None:
    script = [answering(500, b"oops"), answering(503), answering(200, b"ok")]
    async with receiver(*script) as shop, running(world, settings) as pool:
        endpoint = await world.endpoint(shop.url)
        [item] = await world.pay()
        await pool.offer([item])
        [row] = await world.until("delivered", [item], pool)
        for request in shop.requests:
            request.verified(endpoint.secret)
        assert [request.headers["webhook-id"] for request in shop.requests] == [str(item.id)] * 3
    attempts = await world.attempts(item)
    assert [attempt.status_code for attempt in attempts] == [500, 503, 200]
    assert [attempt.response_body for attempt in attempts] == ["oops", "", "ok"]
    assert [attempt.error for attempt in attempts] == ["the receiver answered 500", "the receiver answered 503", None]
    assert (row.lease_version, row.retries, row.attempts_total, row.last_error) == (3, 3, 3, None)


async def test_an_exhausted_delivery_is_sent_again_when_asked(world: World, make_settings: MakeSettings) -> None:
    settings = make_settings(webhook_retry_schedule=(0.01,))
    async with receiver(answering(500), answering(500), answering(200)) as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        [item] = await world.pay()
        await pool.offer([item])
        await world.until("exhausted", [item], pool)
        assert len(shop.requests) == 2
        async with world.database.transaction() as connection:
            resent = await resend(connection, await world.database.clock.now(connection), item.id)
        assert resent is not None
        await pool.offer([resent])
        [row] = await world.until("delivered", [item])
    assert (row.retries, row.attempts_total) == (1, 3)


async def test_too_many_requests_comes_back_when_the_receiver_says(world: World, make_settings: MakeSettings) -> None:
    settings = make_settings(webhook_retry_schedule=(1, 1000))
    async with receiver(answering(429, headers={"retry-after": "90"})) as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        [item] = await world.pay()
        await pool.offer([item])
        [row] = await world.attempted([item])
    assert (row.status, row.due_at - row.updated_at) == ("pending", timedelta(seconds=90))


async def test_a_new_connection_that_breaks_fails_with_one_request(world: World, make_settings: MakeSettings) -> None:
    async with receiver(hanging_up()) as shop, running(world, make_settings(webhook_retry_schedule=())) as pool:
        await world.endpoint(shop.url)
        [item] = await world.pay()
        await pool.offer([item])
        [row] = await world.until("exhausted", [item])
        assert len(shop.requests) == 1
    assert row.last_error == "the connection broke (closed by the receiver)"
    assert len(await world.attempts(item)) == 1


async def test_a_receiver_that_is_not_there_is_a_failure(world: World, make_settings: MakeSettings) -> None:
    async with running(world, make_settings(webhook_retry_schedule=())) as pool:
        await world.endpoint(f"http://127.0.0.1:{free_port()}/")
        [item] = await world.pay()
        await pool.offer([item])
        [row] = await world.until("exhausted", [item])
    assert row.last_error.startswith("could not connect: ")
    [attempt] = await world.attempts(item)
    assert (attempt.status_code, attempt.response_body) == (None, "")


async def test_a_receiver_that_says_nothing_fails_at_the_timeout(world: World, make_settings: MakeSettings) -> None:
    settings = make_settings(webhook_timeout=0.2, webhook_retry_schedule=())
    async with receiver(hanging()) as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        [item] = await world.pay()
        await pool.offer([item])
        [row] = await world.until("exhausted", [item])
        assert len(shop.requests) == 1
    [attempt] = await world.attempts(item)
    assert row.last_error == "no answer in time"
    assert attempt.duration_ms >= 200


# -- what receivers may not do


async def test_a_redirect_is_a_failure_and_is_not_followed(world: World, make_settings: MakeSettings) -> None:
    async with tripwire() as (private_url, contacts), receiver(redirecting(private_url)) as shop:
        async with running(world, make_settings(webhook_retry_schedule=())) as pool:
            await world.endpoint(shop.url)
            [item] = await world.pay()
            await pool.offer([item])
            [row] = await world.until("exhausted", [item])
        assert row.last_error == "the receiver answered 307; redirects are not followed"
        assert contacts == []
        assert len(shop.requests) == 1


async def test_a_huge_answer_is_read_up_to_its_cap(world: World, settings: Settings) -> None:
    async with receiver(streaming(200, b"x" * 65_536)) as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        [item] = await world.pay()
        await pool.offer([item])
        await world.until("delivered", [item])
    [attempt] = await world.attempts(item)
    assert attempt.response_body == "x" * RESPONSE_BYTES_MAX


async def test_a_dripping_answer_ends_at_the_timeout_and_its_status_counts(
    world: World, make_settings: MakeSettings
) -> None:
    settings = make_settings(webhook_timeout=0.3)
    async with receiver(streaming(200, b"drip ", pause_s=0.05)) as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        [item] = await world.pay()
        await pool.offer([item])
        await world.until("delivered", [item])
    [attempt] = await world.attempts(item)
    assert attempt.response_body.startswith("drip drip")
    assert attempt.duration_ms >= 300


async def test_a_packed_answer_is_not_unpacked(world: World, settings: Settings) -> None:
    bomb = answering(200, b"\x1f\x8b not really gzip", {"content-encoding": "gzip"})
    async with receiver(bomb) as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        [item] = await world.pay()
        await pool.offer([item])
        await world.until("delivered", [item])
    [attempt] = await world.attempts(item)
    assert attempt.response_body == "\x1f\ufffd not really gzip"


async def test_a_cookie_is_not_kept(world: World, settings: Settings) -> None:
    cookie = answering(200, headers={"set-cookie": "a=b"})
    async with receiver(cookie) as shop, running(world, settings, resolver=FixedResolver("127.0.0.1")) as pool:
        # A cookie jar would keep nothing of an address.
        await world.endpoint(shop.url.replace("127.0.0.1", "shop.example"))
        for _ in range(2):
            [item] = await world.pay()
            await pool.offer([item])
            await world.until("delivered", [item])
        assert not any("cookie" in name.lower() for request in shop.requests for name in request.headers)


async def test_a_name_that_leads_to_a_private_address_is_refused_at_the_connection(
    world: World, make_settings: MakeSettings
) -> None:
    settings = make_settings(webhook_allowed_networks="10.9.9.0/24", webhook_retry_schedule=())
    async with tripwire() as (private_url, contacts):
        async with running(world, settings, resolver=FixedResolver("127.0.0.1")) as pool:
            await world.endpoint(private_url.replace("127.0.0.1", "shop.example"))
            [item] = await world.pay()
            await pool.offer([item])
            [row] = await world.until("exhausted", [item])
        assert contacts == []
    assert row.last_error == "the URL leads to an address that deliveries may not reach"
    assert [attempt.status_code for attempt in await world.attempts(item)] == [None]


async def test_our_own_ports_are_refused(world: World, make_settings: MakeSettings) -> None:
    async with receiver() as ourselves:
        settings = make_settings(port=ourselves.port, webhook_retry_schedule=())
        async with running(world, settings) as pool:
            await world.endpoint(ourselves.url)
            [item] = await world.pay()
            await pool.offer([item])
            await world.until("exhausted", [item])
        assert ourselves.requests == []


async def test_gone_disables_the_endpoint_and_ends_its_deliveries(world: World, make_settings: MakeSettings) -> None:
    settings = make_settings(webhook_concurrency=1)
    async with receiver(answering(410)) as shop, running(world, settings) as pool:
        endpoint = await world.endpoint(shop.url)
        items = await world.pay(5)
        await pool.offer(items)
        await eventually(lambda: pool.queued == pool.in_flight == 0)
        assert len(shop.requests) == 1
        assert await world.pay() == []
    assert [row.status for row in await world.rows(items)] == ["exhausted", *["cancelled"] * 4]
    async with world.database.read() as connection:
        row = (await connection.execute(select(webhook_endpoints).where(webhook_endpoints.c.id == endpoint.id))).one()
    assert (row.enabled, row.disabled_reason) == (False, "the receiver answered 410 Gone")


async def test_an_endpoint_disabled_after_the_event_gets_nothing(world: World, settings: Settings) -> None:
    async with receiver() as shop, running(world, settings) as pool:
        endpoint = await world.endpoint(shop.url)
        [item] = await world.pay()
        await _disable(world, endpoint)
        await pool.offer([item])
        await world.until("cancelled", [item])
        await eventually(lambda: pool.in_flight == 0)
        assert shop.requests == []


async def _disable(world: World, endpoint: Endpoint) -> None:
    async with world.database.transaction() as connection:
        await connection.execute(
            update(webhook_endpoints).where(webhook_endpoints.c.id == endpoint.id).values(enabled=False)
        )


async def test_a_secret_that_cannot_be_decrypted_fails_that_endpoint_only(
    world: World, make_settings: MakeSettings
) -> None:
    old_keyring = open_keyring(make_settings(data_key="another key that was in use before this one"))
    async with receiver() as shop, running(world, make_settings(webhook_retry_schedule=())) as pool:
        await world.endpoint(shop.url, secret=old_keyring.encrypt(new_webhook_secret()))
        [broken] = await world.pay()
        healthy = await world.endpoint(shop.url)
        items = await world.pay()
        [fine] = [
            item for item, row in zip(items, await world.rows(items), strict=True) if row.endpoint_id == healthy.id
        ]
        await pool.offer([broken, fine])
        [row] = await world.until("exhausted", [broken])
        await world.until("delivered", [fine])
    assert "DATA_KEY" in row.last_error
