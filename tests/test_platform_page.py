"""What docs/platform.md has for pasting is accepted by the service."""

import re
from typing import Any

import pytest
import typer.main
import yaml

from cli.main import app
from shared.config.settings import Settings, load_settings
from tests.support.repository import ROOT
from tests.test_containers import with_defaults

PAGE = (ROOT / "docs" / "platform.md").read_text()
ONE, SCALED = (
    yaml.safe_load(with_defaults(block).replace("${JWT_SECRET}", "x" * 29))["services"]
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
)
# What the platform's compose file sets for us, and the service's own words for it.
OF_THE_PLATFORM = {
    "PORT", "DATABASE_URL", "JWT_SECRET_KEY", "AUTH_SERVICE_URL", "ORDER_SERVICE_URL", "PAYMENT_SUCCESS_RATE",
    "PAYMENT_PROCESSING_DELAY_MIN", "PAYMENT_PROCESSING_DELAY_MAX", "PAYMENT_FAILURE_SCENARIOS", "HOST", "LOG_LEVEL",
    "LOG_FORMAT", "ENVIRONMENT",
}  # fmt: skip
IGNORED = {"DEBUG", "WEBHOOK_SIMULATION_ENABLED", "WEBHOOK_DELAY_MIN", "WEBHOOK_DELAY_MAX"}
OURS = [*ONE.values(), *(part for name, part in SCALED.items() if name != "payment-redis")]


def settings_of(service: dict[str, Any]) -> Settings:
    values = {name.lower(): str(value) for name, value in service["environment"].items() if value is not None}
    assert values.keys() <= Settings.model_fields.keys()
    return load_settings(**values)


@pytest.mark.parametrize("service", OURS, ids=lambda service: service["command"][1])
def test_every_part_starts_with_its_variables_and_a_command_that_exists(service: dict[str, Any]) -> None:
    settings = settings_of(service)
    assert settings.effective_auth_mode == "local_then_remote"
    assert settings.order_service_url == "http://order-service:8008"
    known: dict[str, Any] = getattr(typer.main.get_command(app), "commands", {})
    program, command = service["command"]
    assert (program, command in known) == ("payments", True)
    assert (ROOT / service["build"]["dockerfile"]).exists()


def test_one_container_needs_what_the_platform_sets_and_nothing_more() -> None:
    [service] = ONE.values()
    assert service["command"] == ["payments", "up"]
    assert settings_of(service).redis_url is None
    assert service["environment"].keys() >= OF_THE_PLATFORM
    new = {name for name in service["environment"] if name not in OF_THE_PLATFORM}
    assert all(not service["environment"][name] for name in new)
    assert service["healthcheck"]["test"][1] == "curl"


def test_the_scaled_parts_share_their_settings_and_none_starts_before_the_schema_is_there() -> None:
    for name in ("payment-service", "payment-worker"):
        assert SCALED[name]["environment"] == SCALED["payment-migrate"]["environment"]
        assert SCALED[name]["depends_on"] == {"payment-migrate": {"condition": "service_completed_successfully"}}
        assert settings_of(SCALED[name]).redis_url == "redis://payment-redis:6379/0"
    assert "ports" not in SCALED["payment-worker"]


def test_variables_of_the_platform_that_mean_nothing_to_us_are_named_and_are_none_of_ours() -> None:
    assert not {name.lower() for name in IGNORED} & Settings.model_fields.keys()
    assert [name for name in IGNORED if f"`{name}`" not in PAGE] == []
