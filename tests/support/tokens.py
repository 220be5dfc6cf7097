"""Tokens that are signed by hand, how they are refused, and a database that no wrong one may reach."""

import base64
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any, NoReturn

import pytest

from api.auth.tokens import SharedSecretVerifier
from api.problems import Code, Problem
from shared.database.engine import Database
from shared.errors import DatabaseUnavailable

SECRET = "secret-of-the-tests-with-more-than-32-bytes"
HOUR = timedelta(hours=1)


def refused(verifier: SharedSecretVerifier, bearer: str) -> None:
    with pytest.raises(Problem) as caught:
        verifier.verified(bearer)
    assert caught.value.code == Code.INVALID_TOKEN
    assert len(caught.value.detail or "") < 60  # too short to repeat what was sent


def forged(header: Any, payload: Any, key: bytes = SECRET.encode(), *, raw: bool = False) -> str:
    """A token signed by hand, however wrong its parts are."""
    parts = [part if raw else json.dumps(part).encode() for part in (header, payload)]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = hmac.new(key, signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


class Untouchable(Database):
    """A database that no request may reach; it counts those that do."""

    def __init__(self, inner: Database) -> None:
        self.clock = inner.clock
        self.is_sqlite = inner.is_sqlite
        self.asked = 0

    def transaction(self) -> NoReturn:
        self.asked += 1
        raise DatabaseUnavailable("no request may reach it")

    def read(self) -> NoReturn:
        self.asked += 1
        raise DatabaseUnavailable("no request may reach it")
