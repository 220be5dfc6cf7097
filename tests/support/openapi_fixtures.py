"""The OpenAPI document as a fixture. A module that wants it says so:

pytest_plugins = ["tests.support.openapi_fixtures"]
"""

from typing import Any

import pytest

from api.main import create_app
from api.openapi.document import describe
from api.state import Api
from shared.config.settings import load_settings
from shared.runtime import open_runtime


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The OpenAPI document, of an API that reaches neither database nor Redis."""
    runtime = open_runtime(load_settings(database_url="postgresql://127.0.0.1:1/x", redis_url="redis://127.0.0.1:1"))
    return describe(create_app(Api(runtime)))
