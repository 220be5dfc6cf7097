"""A broker on a Valkey of its own that a test may kill or pause, and some work items to publish."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shared.broker.client import Broker, open_broker
from shared.database.leases import WorkItem
from shared.ids import new_id
from tests.support.servers import ValkeyServer

# For what takes no time, on a loaded machine.
PROMPT_S = 1.0


def some_items(count: int) -> list[WorkItem]:
    return [WorkItem(new_id(), number % 3) for number in range(count)]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
async def own_broker(own: ValkeyServer) -> AsyncIterator[Broker]:
    broker = open_broker(own.url)
    yield broker
    own.resume() if own.is_running else None
    await broker.close()
