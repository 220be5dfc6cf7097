"""The settings of a process with some variables, as a fixture. A module that wants it says so:

pytest_plugins = ["tests.support.environment_fixtures"]
"""

import pytest

from shared.config.settings import Settings, load_settings
from tests.support.environments import Environment


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """`environment(PORT="1")`: the settings of a process with these variables. They are input, nothing is replaced."""

    def load(**variables: str) -> Settings:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            return load_settings()

    return load
