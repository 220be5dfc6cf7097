"""Settings that stop the start: the variable is named, and its value is not repeated."""

import pytest

from tests.support.environments import Environment, stopped

pytest_plugins = ["tests.support.environment_fixtures"]

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
