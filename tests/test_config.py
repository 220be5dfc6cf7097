"""Settings: their defaults, what the environment may say, and which of its variables are ours."""

from ipaddress import ip_network
from typing import Any

import pytest

from shared.config.misspelt import misspelt
from shared.config.security import DEVELOPMENT_SECRET
from shared.config.settings import Settings, load_settings
from shared.errors import ConfigurationError
from shared.runtime import open_runtime
from tests.support.environments import PLATFORM, SECRET, Environment, stopped

pytest_plugins = ["tests.support.environment_fixtures"]


# -- what works


def test_without_a_variable_it_is_for_development_on_this_machine_only(environment: Environment) -> None:
    settings = environment()
    assert (settings.host, settings.port, settings.metrics_port) == ("127.0.0.1", 8009, 0)
    assert settings.database_url == "sqlite+aiosqlite:///var/payments.db"
    assert (settings.redis_url, settings.auth_service_url, settings.order_service_url) == (None, None, None)
    assert (settings.jwt_algorithm, settings.jwt_secret_key.get_secret_value()) == ("HS256", DEVELOPMENT_SECRET)
    assert (settings.payment_success_rate, settings.payment_failure_scenarios) == (0.95, False)
    assert (settings.payment_processing_delay_min, settings.payment_processing_delay_max) == (1000, 3000)
    assert (settings.min_payment_amount, settings.max_payment_amount) == (50, 100_000_000)
    assert (settings.max_payment_methods_per_user, settings.idempotency_retention_h) == (5, 24)
    assert (settings.worker_concurrency, settings.lease_s, settings.max_claims) == (2000, 30, 5)
    assert (settings.webhook_concurrency, settings.webhook_timeout) == (200, 15)
    assert settings.webhook_retry_schedule == (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
    assert settings.delivery_networks == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert (settings.log_level, settings.log_format, settings.environment) == ("INFO", "json", "development")
    assert settings.database_schema == "payments"
    assert (settings.rate_limit_user, settings.rate_limit_address, settings.trusted_proxies) == (None, None, ())


def test_the_platforms_variables_are_accepted_as_they_are(environment: Environment) -> None:
    settings = environment(**PLATFORM)
    assert settings.database_url == "postgresql+asyncpg://projectzero:projectzero@postgres:5432/project_zero"
    assert settings.payment_failure_scenarios
    assert settings.redis_url is None
    assert (settings.auth_service_url, settings.order_service_url) == (
        "http://auth-service:8001",
        "http://order-service:8008",
    )
    settings.warn()
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        open_runtime(settings)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("sqlite:///data/p.db", "sqlite+aiosqlite:///data/p.db"),
        ("sqlite:////tmp/p.db", "sqlite+aiosqlite:////tmp/p.db"),
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql+asyncpg://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u:p%40ss@h:1/d", "postgresql+asyncpg://u:p%40ss@h:1/d"),
        ("postgresql://u:p@h/d?sslmode=require", "postgresql+asyncpg://u:p@h/d?sslmode=require"),
        ("postgresql+asyncpg://u:p@h/d?ssl=require", "postgresql+asyncpg://u:p@h/d?sslmode=require"),
        ("postgresql://u:p@a:1,b:2/d", "postgresql+asyncpg://u:p@/d?host=a%3A1&host=b%3A2"),
    ],
)
def test_plain_database_urls_get_the_driver_we_use(environment: Environment, given: str, used: str) -> None:
    assert environment(DATABASE_URL=given).database_url == used


def test_a_printed_database_url_hides_its_password(environment: Environment) -> None:
    settings = environment(DATABASE_URL="postgresql://u:hunter2@h/d", JWT_SECRET_KEY=SECRET, DATA_KEY=SECRET)
    assert "hunter2" not in settings.database_name + repr(settings)
    assert SECRET not in repr(settings)


def test_lists_are_separated_by_commas(environment: Environment) -> None:
    settings = environment(
        WEBHOOK_RETRY_SCHEDULE="5, 0.5,300",
        WEBHOOK_ALLOWED_NETWORKS="10.80.9.0/24, ::1/128",
    )
    assert settings.webhook_retry_schedule == (5, 0.5, 300)
    assert settings.delivery_networks == (ip_network("10.80.9.0/24"), ip_network("::1/128"))
    settings = environment(TRUSTED_PROXIES="10.0.0.1, 10.80.9.0/24 ,::1")
    assert settings.trusted_proxies == (ip_network("10.0.0.1"), ip_network("10.80.9.0/24"), ip_network("::1"))
    assert environment(WEBHOOK_ALLOWED_NETWORKS=",").delivery_networks == ()
    assert environment(WEBHOOK_RETRY_SCHEDULE=",").webhook_retry_schedule == ()


@pytest.mark.parametrize("rate", ["1/second", "600/minute", "600 per 2 hours", "5 per minute", "1000/day"])
def test_a_rate_is_a_number_in_a_time(environment: Environment, rate: str) -> None:
    settings = environment(RATE_LIMIT_USER=rate, RATE_LIMIT_ADDRESS=rate)
    assert (settings.rate_limit_user, settings.rate_limit_address) == (rate, rate)


def test_an_empty_variable_is_like_none(environment: Environment) -> None:
    names = [name.upper() for name in Settings.model_fields]
    assert environment(**dict.fromkeys(names, "")) == environment()
    for name in ("AUTH_SERVICE_URL", "ORDER_SERVICE_URL", "REDIS_URL"):
        assert getattr(environment(**{name: "  "}), name.lower()) is None


def test_in_production_loopback_is_closed_to_webhooks(environment: Environment) -> None:
    assert environment(ENVIRONMENT="Production", JWT_SECRET_KEY=SECRET, DATA_KEY=SECRET).delivery_networks == ()


def test_our_own_ports_are_known(environment: Environment) -> None:
    settings = environment(PORT="1", METRICS_PORT="2", DATABASE_URL="postgresql://u@h:3/d", REDIS_URL="redis://h:4/0")
    assert settings.own_ports == {1, 2, 3, 4}
    assert environment(PORT="1", DATABASE_URL="postgresql://u@h/d", REDIS_URL="redis://h").own_ports == {1, 5432, 6379}
    assert environment(PORT="1", REDIS_URL="unix:///tmp/valkey.sock").own_ports == {1}


# -- secrets


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("DATABASE_URI", "DATABASE_URL"),
        ("DATABASEURL", "DATABASE_URL"),
        ("database_uri", "DATABASE_URL"),
        ("JWT_SECRET", "JWT_SECRET_KEY"),
        ("WORKERS_CONCURRENCY", "WORKER_CONCURRENCY"),
        ("PAYMENT_SUCESS_RATE", "PAYMENT_SUCCESS_RATE"),
        ("WEBHOOK_TIMEOUT_S", "WEBHOOK_TIMEOUT"),
        ("ENVIROMENT", "ENVIRONMENT"),
        ("ORDER_SERVICE", "ORDER_SERVICE_URL"),
        ("GATEWAY_NOTIFICATIONS_URL", "GATEWAY_NOTIFICATION_URL"),
        ("NOTIFICATION_URL", "GATEWAY_NOTIFICATION_URL"),
    ],
)
def test_a_misspelt_setting_is_noticed(variable: str, meant: str) -> None:
    assert misspelt({variable: "x"}, Settings.model_fields) == {variable: meant}


def test_a_variable_of_another_program_is_not_taken_for_a_setting() -> None:
    kubernetes = [
        f"{service}_{what}"
        for service in ("AUTH_SERVICE", "ORDER_SERVICE", "REDIS", "POSTGRES", "PAYMENT_SERVICE")
        for what in ("SERVICE_HOST", "SERVICE_PORT", "PORT", "PORT_8001_TCP", "PORT_8001_TCP_ADDR")
    ]
    usual = [
        "HOSTNAME",
        "PATH",
        "HOME",
        "LANG",
        "PGHOST",
        "PGPORT",
        "REDIS_HOST",
        "POSTGRES_PASSWORD",
        "PAYMENTS_TOKEN",
    ]
    assert misspelt([*kubernetes, *usual, *PLATFORM, "PAYMENTS_TOKEN"], Settings.model_fields) == {}
    assert misspelt([name.upper() for name in Settings.model_fields], Settings.model_fields) == {}


def test_overrides_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    assert load_settings(port=2).port == 2
    with pytest.raises(ConfigurationError, match=r"^PORT: "):
        load_settings(port="x")


def test_settings_do_not_change(environment: Environment) -> None:
    settings: Any = environment()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1


def test_simulation_is_on_in_development_and_off_in_production_unless_it_is_set(environment: Environment) -> None:
    production = {"ENVIRONMENT": "production", "JWT_SECRET_KEY": SECRET}
    assert environment().is_simulation_on
    assert not environment(**production).is_simulation_on
    for text, is_on in (("on", True), ("ON", True), ("off", False)):
        assert environment(SIMULATION=text).is_simulation_on is is_on
        assert environment(**production, SIMULATION=text).is_simulation_on is is_on
    assert stopped(environment, SIMULATION="true") == "SIMULATION: should be 'on' or 'off'"
