"""A verifier of tokens, the auth service's stand-in and a server of public keys, as fixtures.

pytest_plugins = ["tests.support.auth_fixtures"]
"""

from collections.abc import AsyncIterator

import pytest

from api.auth.tokens import SharedSecretVerifier
from tests.conftest import TEST_SECRET
from tests.support.auth_standins import AuthService, KeyServer
from tests.support.standins import running
from tests.support.tokens import SECRET


@pytest.fixture
async def auth_service() -> AsyncIterator[AuthService]:
    async with running(AuthService(secret=TEST_SECRET)) as service:
        yield service


@pytest.fixture
async def key_server() -> AsyncIterator[KeyServer]:
    async with running(KeyServer()) as server:
        yield server


@pytest.fixture
def verifier() -> SharedSecretVerifier:
    return SharedSecretVerifier(secret=SECRET, algorithm="HS256")
