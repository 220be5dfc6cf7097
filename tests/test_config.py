"""Every setting: its default, what the environment may say, and what stops the start with the variable's name."""

import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest

from shared.config.misspelt import misspelt
from shared.config.security import DEVELOPMENT_SECRET
from shared.config.settings import Settings, load_settings
from shared.errors import ConfigurationError
from shared.runtime import open_runtime

type Environment = Callable[..., Settings]

SECRET = "a-secret-of-at-least-thirty-two-bytes-of-length"
# As the platform's compose file sets them: a secret of 29 bytes, no REDIS_URL, and variables that are not ours.
PLATFORM = {
    "PORT": "8009",
    "HOST": "0.0.0.0",  # noqa: S104
    "DATABASE_URL": "postgresql://projectzero:projectzero@postgres:5432/project_zero",
    "JWT_SECRET_KEY": "x" * 29,
    "AUTH_SERVICE_URL": "http://auth-service:8001",
    "ORDER_SERVICE_URL": "http://order-service:8008",
    "PAYMENT_SUCCESS_RATE": "0.95",
    "PAYMENT_PROCESSING_DELAY_MIN": "1000",
    "PAYMENT_PROCESSING_DELAY_MAX": "3000",
    "PAYMENT_FAILURE_SCENARIOS": "true",
    "DEBUG": "false",
    "WEBHOOK_SIMULATION_ENABLED": "true",
    "WEBHOOK_DELAY_MIN": "x",
    "WEBHOOK_DELAY_MAX": "",
    "LOG_LEVEL": "info",
    "LOG_FORMAT": "json",
    "ENVIRONMENT": "development",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """`environment(PORT="1")`: the settings of a process with these variables. They are input, nothing is replaced."""

    def load(**variables: str) -> Settings:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            return load_settings()

    return load


def stopped(environment: Environment, **variables: str) -> str:
    """Why a process with these variables does not start."""
    with pytest.raises(ConfigurationError) as caught:
        environment(**variables)
    return str(caught.value)


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


# -- what stops the start

WRONG: dict[str, list[str]] = {
    "PORT": ["x", "-1", "65536", "80.5", "0"],
    "METRICS_PORT": ["x", "65536"],
    "DATABASE_URL": [
        "nonsense", "mysql://h/d", "sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true",
        "sqlite:///file:x?mode=memory", "postgresql+psycopg2://h/d", "postgresql://h:port/d", "postgresql://h:65536/d",
    ],
    "DATABASE_SCHEMA": ["a;b", "Payments", "1a", "a b", "x" * 64],
    "DATABASE_POOL_SIZE": ["0", "1", "x"],
    "DATABASE_TIMEOUT_S": ["0", "-1", "nan", "inf"],
    "REDIS_URL": ["http://h", "h:6379", "redis://h:port", "redis://h:65536", "redis://[h"],
    "JWT_ALGORITHM": ["none", "RS256", "hs256"],
    "AUTH_SERVICE_URL": ["auth:8001", "ftp://h", "http://", "http://h:port", "http://:8001"],
    "ORDER_SERVICE_URL": ["order:8008", "https://", "http://[h"],
    "PAYMENT_SUCCESS_RATE": ["-0.1", "1.1", "95%", "nan"],
    "PAYMENT_PROCESSING_DELAY_MIN": ["-1", "4000", "1.5", "x"],
    "PAYMENT_PROCESSING_DELAY_MAX": ["-1", "60001"],
    "PAYMENT_FAILURE_SCENARIOS": ["maybe", "2"],
    "RATE_LIMIT_USER": ["x", "600", "600/fortnight", "0/minute", "-1/minute", "1.5/minute", "1/month", "9/2day"],
    "RATE_LIMIT_ADDRESS": ["per minute", "5/second;6/minute", f"{10**10}/second", "600 minutes"],
    "TRUSTED_PROXIES": ["x", "10.0.0.1/8", "*", "10.0.0.0/33", "proxy.example", "10.0.0.1:80"],
    "MIN_PAYMENT_AMOUNT": ["0", "-1", "0.5", "100000001"],
    "MAX_PAYMENT_AMOUNT": ["0", str(2**63), "1e3"],
    "MAX_PAYMENT_METHODS_PER_USER": ["0", "101"],
    "ACCEPT_QUEUE_MAX": ["0"],
    "ACCEPT_BATCH_MAX": ["0", "1001"],
    "WAITERS_MAX": ["-1"],
    "IDEMPOTENCY_RETENTION_H": ["23", "0"],
    "WORKER_CONCURRENCY": ["0"],
    "LEASE_S": ["0", "13", "nan", "inf"],
    "MAX_CLAIMS": ["0"],
    "WEBHOOK_CONCURRENCY": ["0"],
    "WEBHOOK_TIMEOUT": ["0", "121", "nan"],
    "WEBHOOK_LEASE_S": ["25"],
    "WEBHOOK_RETRY_SCHEDULE": ["5,x", "-1", "nan", "inf", "5 300", "[5, 300]", "99999999"],
    "WEBHOOK_ALLOWED_NETWORKS": ["x", "10.0.0.1/8", "10.0.0.0/33"],
    "GATEWAY_NOTIFICATION_URL": [
        "api:8009", "ftp://api", "http://", "http://u:p@api", "http://api/?a=b", "http://api/#a", "http://api:99999",
    ],
    "LOG_LEVEL": ["loud"],
    "LOG_FORMAT": ["xml"],
    "ENVIRONMENT": ["staging"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_stops_the_start_and_names_its_variable(environment: Environment, name: str, value: str) -> None:
    reason = stopped(environment, **{name: value})
    assert {line.partition(":")[0] for line in reason.splitlines()} == {name}


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("10.1.2.3", "10.1.2.3"), ("::", "[::1]"),  # noqa: S104
        ("fd00::2", "[fd00::2]"), ("localhost", "localhost"),
    ],
)  # fmt: skip
def test_the_api_is_reached_from_its_own_machine_wherever_it_listens(
    environment: Environment, host: str, url: str
) -> None:
    settings = environment(HOST=host, JWT_SECRET_KEY="j" * 32, DATA_KEY="d" * 32)
    assert settings.local_host == url


def test_all_that_is_wrong_is_said_at_once(environment: Environment) -> None:
    reason = stopped(environment, PORT="x", LOG_LEVEL="loud", WEBHOOK_RETRY_SCHEDULE="x,y")
    assert {line.partition(":")[0] for line in reason.splitlines()} == {"PORT", "LOG_LEVEL", "WEBHOOK_RETRY_SCHEDULE"}
    reason = stopped(environment, LEASE_S="5", MIN_PAYMENT_AMOUNT="100000001", HOST="0.0.0.0")  # noqa: S104
    assert {line.partition(":")[0] for line in reason.splitlines()} == {
        "LEASE_S", "MIN_PAYMENT_AMOUNT", "JWT_SECRET_KEY", "DATA_KEY",
    }  # fmt: skip


def test_values_are_not_repeated_they_may_be_secrets(environment: Environment) -> None:
    secret = "hunter2hunter2"
    for name, value in {
        "DATABASE_URL": f"postgresql://u:{secret}@h:{secret}/d",
        "REDIS_URL": f"redis://:{secret}@h:{secret}",
        "AUTH_SERVICE_URL": f"http://u:{secret}@h:{secret}",
        "ORDER_SERVICE_URL": secret,
        "JWT_ALGORITHM": secret,
        "PORT": secret,
        "WEBHOOK_RETRY_SCHEDULE": f"5,{secret}",
        "WEBHOOK_ALLOWED_NETWORKS": secret,
        "RATE_LIMIT_USER": secret,
        "TRUSTED_PROXIES": secret,
        "ENVIRONMENT": secret,
        "DATABASE_SCHEMA": f"{secret};",
    }.items():
        assert secret not in stopped(environment, **{name: value}), name


def test_a_lease_outlives_the_longest_delay_and_the_webhook_timeout(environment: Environment) -> None:
    environment(PAYMENT_PROCESSING_DELAY_MAX="3000", LEASE_S="13.1")
    assert stopped(environment, PAYMENT_PROCESSING_DELAY_MAX="20000").startswith("LEASE_S: must exceed")
    assert stopped(environment, WEBHOOK_TIMEOUT="20").startswith("WEBHOOK_LEASE_S: must exceed")


# -- secrets


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({}, set()),
        ({"HOST": "localhost"}, set()),
        ({"HOST": "::1"}, set()),
        ({"HOST": "127.0.0.2"}, set()),
        ({"HOST": "0.0.0.0"}, {"JWT_SECRET_KEY", "DATA_KEY"}),  # noqa: S104
        ({"HOST": "::"}, {"JWT_SECRET_KEY", "DATA_KEY"}),
        ({"HOST": "192.168.1.2"}, {"JWT_SECRET_KEY", "DATA_KEY"}),
        ({"HOST": "payments.example"}, {"JWT_SECRET_KEY", "DATA_KEY"}),
        ({"ENVIRONMENT": "production"}, {"JWT_SECRET_KEY", "DATA_KEY"}),
        ({"HOST": "0.0.0.0", "JWT_SECRET_KEY": SECRET}, set()),  # noqa: S104
        ({"HOST": "0.0.0.0", "JWT_SECRET_KEY": "x" * 29}, set()),  # noqa: S104
        ({"HOST": "0.0.0.0", "DATA_KEY": SECRET}, {"JWT_SECRET_KEY"}),  # noqa: S104
        ({"HOST": "0.0.0.0", "JWT_SECRET_KEY": DEVELOPMENT_SECRET}, {"JWT_SECRET_KEY", "DATA_KEY"}),  # noqa: S104
        ({"HOST": "0.0.0.0", "JWT_SECRET_KEY": SECRET, "DATA_KEY": DEVELOPMENT_SECRET}, {"DATA_KEY"}),  # noqa: S104
    ],
)
def test_the_development_secrets_work_on_loopback_only(
    environment: Environment, variables: dict[str, str], missing: set[str]
) -> None:
    if missing:
        reason = stopped(environment, **variables)
        assert {line.partition(":")[0] for line in reason.splitlines()} == missing
        assert DEVELOPMENT_SECRET not in reason
    else:
        environment(**variables)


@pytest.mark.parametrize(
    ("variables", "warned"),
    [
        ({"JWT_SECRET_KEY": SECRET}, []),
        ({"JWT_SECRET_KEY": "x" * 31}, ["short_secret JWT_SECRET_KEY", "short_secret DATA_KEY"]),
        ({"JWT_SECRET_KEY": "ü" * 16}, []),  # bytes count, not characters
        ({"JWT_SECRET_KEY": SECRET, "DATA_KEY": "tiny-key"}, ["short_secret DATA_KEY"]),
        ({}, ["development_secret JWT_SECRET_KEY", "development_secret DATA_KEY"]),
    ],
)
def test_short_secrets_are_warned_of(
    environment: Environment, capfd: pytest.CaptureFixture[str], variables: dict[str, str], warned: list[str]
) -> None:
    environment(**variables, WEBHOOK_ALLOWED_NETWORKS=",").warn()
    said = re.sub(r"\x1b\[[0-9;]*m", "", capfd.readouterr().out)
    found = re.findall(r"settings\.(\w+_secret).*variable=(\w+)", said)
    assert [f"{event} {name}" for event, name in found] == warned
    assert not any(value in said for value in variables.values())


def test_people_are_told_of_development_in_one_sentence(
    environment: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    environment(LOG_FORMAT="console").warn()
    [line] = capfd.readouterr().out.splitlines()
    assert "Built-in secrets are in use and webhooks may reach loopback: for development only." in line
    environment(LOG_FORMAT="console", WEBHOOK_ALLOWED_NETWORKS=",").warn()
    assert "webhooks" not in capfd.readouterr().out


@pytest.mark.parametrize("name", ["JWT_SECRET_KEY", "DATA_KEY", "WEBHOOK_SIGNING_SECRET"])
def test_production_refuses_a_key_that_can_be_guessed(environment: Environment, name: str) -> None:
    secrets = {"JWT_SECRET_KEY": SECRET, "DATA_KEY": SECRET, "WEBHOOK_SIGNING_SECRET": SECRET}
    for long_enough in ("x" * 16, "ü" * 8):
        environment(ENVIRONMENT="production", **secrets | {name: long_enough})
    for short in ("x" * 15, "ü" * 7):
        reason = stopped(environment, ENVIRONMENT="production", **secrets | {name: short})
        assert reason == f"{name}: must have at least 16 bytes in production; 32 are better"
        environment(ENVIRONMENT="development", **secrets | {name: short})


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


def test_the_data_key_is_the_jwt_secret_unless_it_is_set(environment: Environment) -> None:
    assert environment(JWT_SECRET_KEY=SECRET).data_key_text == SECRET
    assert environment(JWT_SECRET_KEY=SECRET, DATA_KEY="other").data_key_text == "other"


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
