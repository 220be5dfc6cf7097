"""Fixtures of deliveries. A module that wants them says so, and imports the helpers from `tests.support`:

pytest_plugins = ["tests.support.delivery_fixtures"]
"""

import pytest

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.keyring import Keyring, open_keyring
from tests.support.delivery_pools import World


@pytest.fixture
def keyring(settings: Settings) -> Keyring:
    """The keys of the test's settings."""
    return open_keyring(settings)


@pytest.fixture
def world(database: Database, keyring: Keyring) -> World:
    """The test's database, as the tests of the delivery pool use it."""
    return World(database, keyring)
