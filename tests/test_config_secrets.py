"""Secrets among the settings: which ones are refused or warned of, and where those of development work."""

import re

import pytest

from shared.config.security import DEVELOPMENT_SECRET
from tests.support.environments import SECRET, Environment, stopped

pytest_plugins = ["tests.support.environment_fixtures"]


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


def test_the_data_key_is_the_jwt_secret_unless_it_is_set(environment: Environment) -> None:
    assert environment(JWT_SECRET_KEY=SECRET).data_key_text == SECRET
    assert environment(JWT_SECRET_KEY=SECRET, DATA_KEY="other").data_key_text == "other"
