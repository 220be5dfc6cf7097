"""Settings of processes with the variables that a test gives them, or the platform."""

from collections.abc import Callable

import pytest

from shared.config.settings import Settings
from shared.errors import ConfigurationError

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


def stopped(environment: Environment, **variables: str) -> str:
    """Why a process with these variables does not start."""
    with pytest.raises(ConfigurationError) as caught:
        environment(**variables)
    return str(caught.value)
