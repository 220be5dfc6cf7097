"""The installation that state machines of Hypothesis run on, as a fixture."""

from collections.abc import Iterator

import pytest

from shared.config.settings import Settings
from tests.support.harness import Harness


@pytest.fixture
def harness(settings: Settings) -> Iterator[Harness]:
    with Harness(settings) as harness:
        yield harness
