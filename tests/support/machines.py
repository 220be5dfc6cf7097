"""Running a state machine of Hypothesis on one of the databases."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck
from hypothesis import settings as settings_of
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def examine(machine: Callable[[], RuleBasedStateMachine], *, examples: int, steps: int, **options: Any) -> None:
    """Try `examples` sequences of at most `steps` rules of new machines."""
    run_state_machine_as_test(
        machine,  # type: ignore[arg-type]  # hypothesis takes any factory of machines
        settings=settings_of(
            max_examples=examples, stateful_step_count=steps, deadline=None, database=None,
            suppress_health_check=list(HealthCheck), **options,
        ),
    )  # fmt: skip
