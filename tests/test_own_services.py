"""Which services are our own, by the settings, and whose URLs may name them."""

from collections.abc import Callable

import pytest

from shared.config.services import database_services, service_of
from shared.config.settings import Settings, load_settings
from shared.config.values import Service
from shared.errors import ConfigurationError
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, added, opened, order, problem

pytest_plugins = ["tests.support.api_fixtures"]

SECRET = "secret-of-the-tests-with-more-than-32-bytes"


@pytest.mark.parametrize(
    ("url", "services"),
    [
        ("sqlite+aiosqlite:///p.db", ()),
        ("postgresql+asyncpg://u:p@DB.internal/d", (Service("db.internal", 5432),)),
        ("postgresql+asyncpg://u@db:6000/d", (Service("db", 6000),)),
        ("postgresql+asyncpg://u@[fd00::7]:6000/d", (Service("fd00::7", 6000),)),
        ("postgresql+asyncpg:///d", (Service("localhost", 5432),)),
        ("postgresql+asyncpg:///d?host=/run/postgresql", ()),
        ("postgresql+asyncpg:///d?host=one:6001&host=two:6002", (Service("one", 6001), Service("two", 6002))),
        ("postgresql+asyncpg:///d?host=one,two&port=6001,6002", (Service("one", 6001), Service("two", 6002))),
        ("postgresql+asyncpg:///d?host=one&host=two&port=6001", (Service("one", 6001), Service("two", 6001))),
    ],
)
def test_every_host_of_a_database_is_known(url: str, services: tuple[Service, ...]) -> None:
    assert database_services(load_settings(database_url=url).postgres) == services


@pytest.mark.parametrize(
    ("url", "service"),
    [
        ("http://auth", Service("auth", 80)),
        ("https://[fd00::7]/x", Service("fd00::7", 443)),
    ],
)
def test_a_url_without_a_port_has_the_usual_one(url: str, service: Service) -> None:
    assert service_of(url) == service


@pytest.mark.parametrize(
    ("url", "services"),
    [
        ("redis://:secret@Cache.internal/0", {Service("cache.internal", 6379)}),
        ("rediss://cache:7000", {Service("cache", 7000)}),
        ("redis:///0", {Service("localhost", 6379)}),
        ("redis+sentinel://one,two:27000/master/0", {Service("one", 26379), Service("two", 27000)}),
        ("unix:///run/redis.sock", set()),
    ],
)
def test_every_host_of_redis_is_known(url: str, services: set[Service]) -> None:
    settings = load_settings(database_url="sqlite:///p.db", redis_url=url, host="127.0.0.1", port=1)
    assert set(settings.closed_services) == services | {Service("127.0.0.1", 1)}


def test_all_services_of_our_own_are_closed_and_the_order_service_to_users() -> None:
    settings = load_settings(
        host="payments.internal",
        port=1,
        metrics_port=2,
        database_url="postgresql://u@db:3/d",
        redis_url="redis://cache:4/0",
        auth_service_url="http://auth:5",
        jwt_jwks_url="https://keys.example/jwks",
        order_service_url="http://orders:6",
        jwt_secret_key=SECRET,
    )
    closed = {
        Service("payments.internal", 1),
        Service("db", 3),
        Service("cache", 4),
        Service("auth", 5),
        Service("keys.example", 443),
    }
    assert set(settings.closed_services) == closed
    assert set(settings.services_closed_to_users) == closed | {Service("orders", 6)}
    assert settings.own_ports == {1, 2, 3, 4}


def test_what_listens_everywhere_is_known_by_its_port() -> None:
    settings = load_settings(host="0.0.0.0", port=1, jwt_secret_key=SECRET)  # noqa: S104
    assert settings.closed_services == ()
    assert settings.own_ports == {1}


async def test_urls_that_name_a_service_of_our_own_are_refused(
    runtime: Runtime, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(
        auth_service_url="http://auth.internal:8001",
        auth_mode="local",
        jwt_jwks_url=None,
        order_service_url="http://127.0.0.1:8008",
        webhook_allowed_networks="127.0.0.0/8,10.0.0.0/8",
    )
    own_port = settings.port
    async with opened(Runtime(settings, runtime.database, runtime.broker, runtime.keyring)) as running_api:
        user, service = running_api.user(), running_api.service()
        method = await added(user)
        closed = ["http://auth.internal:8001/", f"http://10.1.2.3:{own_port}/", f"http://127.0.0.1:{own_port}/"]
        for url in closed:
            answer = await service.post("/webhook-endpoints", json={"name": "shop", "url": url})
            problem(answer, 422, "callback_url_refused")
        for url in [*closed, "http://127.0.0.1:8008/", "http://127.9.9.9:8008/", "http://localhost:8008/"]:
            answer = await user.post("/payments", json=order(method, order_id="1", callback_url=url))
            problem(answer, 422, "callback_url_refused")
        answer = await service.post("/webhook-endpoints", json={"name": "shop", "url": "http://127.0.0.1:8008/"})
        assert answer.status_code == 201


# -- https in production


@pytest.mark.parametrize(
    ("environment", "allow_http", "is_allowed"),
    [
        ("development", None, True),
        ("development", False, False),
        ("production", None, False),
        ("production", True, True),
    ],
)
def test_in_production_new_urls_begin_with_https(environment: str, allow_http: bool | None, is_allowed: bool) -> None:
    settings = load_settings(
        environment=environment, webhook_allow_http=allow_http, jwt_secret_key=SECRET, data_key=SECRET
    )
    assert settings.allows_http_webhooks == is_allowed


async def test_without_http_every_url_that_is_given_must_be_https(
    runtime: Runtime, running_api: RunningApi, make_settings: Callable[..., Settings]
) -> None:
    made = await running_api.service().post("/webhook-endpoints", json={"name": "shop", "url": "http://shop.example/"})
    path = f"/webhook-endpoints/{made.json()['id']}"
    settings = make_settings(webhook_allow_http=False)
    async with opened(Runtime(settings, runtime.database, runtime.broker, runtime.keyring)) as strict:
        user, service = strict.user(), strict.service()
        plain = {"name": "shop", "url": "http://shop.example/"}
        problem(await service.post("/webhook-endpoints", json=plain), 422, "callback_url_refused")
        problem(await service.patch(path, json={"url": "http://other.example/"}), 422, "callback_url_refused")
        body = order(await added(user), callback_url="http://shop.example/")
        problem(await user.post("/payments", json=body), 422, "callback_url_refused")
        # What was registered before stays in use, and can be changed otherwise.
        assert (await service.patch(path, json={"name": "old shop"})).json()["enabled"]
        assert (await service.patch(path, json={"url": "https://shop.example/"})).status_code == 200


# -- lists


@pytest.mark.parametrize("word", ["none", "None", " none ", ","])
def test_none_is_an_empty_list(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    names = ("WEBHOOK_RETRY_SCHEDULE", "WEBHOOK_ALLOWED_NETWORKS", "TRUSTED_PROXIES", "WEBHOOK_NAME_SERVERS")
    for name in names:
        monkeypatch.setenv(name, word)
    settings = load_settings()
    assert [getattr(settings, name.lower()) for name in names] == [()] * 4
    assert settings.delivery_networks == ()


def test_name_servers_are_addresses_with_or_without_a_port() -> None:
    servers = ("10.0.0.2", "127.0.0.1:5353", "[fd00::2]:5353", "[fd00::2]")
    assert load_settings(webhook_name_servers=",".join(servers)).webhook_name_servers == servers
    for wrong in ("dns.example", "10.0.0.2:x", "10.0.0.2:99999", "10.0.0.2 10.0.0.3", "none,10.0.0.2"):
        with pytest.raises(ConfigurationError, match="WEBHOOK_NAME_SERVERS"):
            load_settings(webhook_name_servers=wrong)
