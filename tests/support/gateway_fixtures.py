"""Fixtures of the simulated gateway. A module that wants them says so, and imports the helpers from `tests.support`:

pytest_plugins = ["tests.support.gateway_fixtures"]
"""

from collections.abc import AsyncIterator

import pytest

from shared.database.engine import Database
from tests.support.gateways import running_ledger
from worker.gateway.ledger import Ledger


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    """A ledger that runs over the test's database."""
    async with running_ledger(database) as ledger:
        yield ledger
