"""The verbs in any order, with work items of any age, against a simple model of them, on both databases.

What is drawn is what a bad day brings: messages twice, late and out of order, workers that wake up after their lease,
a relay at any moment, and clients that repeat themselves. After every step all rows are as the model says.
"""

import pytest

from tests.support.harness import Harness
from tests.support.machines import examine
from tests.support.verbs import Verbs

pytest_plugins = ["tests.support.machine_fixtures"]


def test_verbs_in_any_order_do_what_the_model_says(harness: Harness) -> None:
    examine(lambda: Verbs(harness), examples=12, steps=40, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_verbs_in_any_order_do_what_the_model_says_however_long_one_looks(harness: Harness) -> None:
    examine(lambda: Verbs(harness), examples=500, steps=50)
