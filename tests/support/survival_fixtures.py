"""Fixtures of the tests of survival: settings, and servers that may be killed. A module that wants them says so:

pytest_plugins = ["tests.support.survival_fixtures"]
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.config.settings import Settings
from tests.support.servers import PostgresServer, ValkeyServer
from tests.support.survival import MakeSettings

# Just above what the settings allow with the delays below.
SHORT_LEASE_S = 11.5


@pytest.fixture
def slow_gateway(make_settings: MakeSettings) -> MakeSettings:
    """Settings with ten slots per worker and payments that stay in the gateway long enough to be met there."""

    def make(**changes: Any) -> Settings:
        values = {
            "worker_concurrency": 10,
            "payment_processing_delay_min": 300,
            "payment_processing_delay_max": 500,
            "payment_success_rate": 0.9,
            "lease_s": SHORT_LEASE_S,
            "relay_interval_s": 0.5,
            "poll_delay_ms": 20,
        }
        return make_settings(**{**values, **changes})

    return make


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "own-valkey") as server:
        yield server


@pytest.fixture(scope="module")
def _own_postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def own_postgres(_own_postgres: PostgresServer) -> PostgresServer:
    """A server that may be killed and paused, with an empty database `own`."""
    _own_postgres.start()
    _own_postgres.drop_database("own")
    _own_postgres.create_database("own")
    return _own_postgres
