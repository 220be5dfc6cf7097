"""Tokens that are not exactly right: each of them is refused."""

from datetime import UTC, datetime, timedelta
from time import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from api.auth.tokens import NOT_BEFORE_LEEWAY_S, SharedSecretVerifier
from tests.support.api_client import token
from tests.support.tokens import HOUR, SECRET, forged, refused

pytest_plugins = ["tests.support.auth_fixtures"]


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": datetime.now(UTC) - timedelta(seconds=1)},
        {"exp": 0},
        {"exp": -1},
        {"exp": True},
        {"exp": None},
        {"exp": "soon"},
        {"exp": []},
        {"exp": {}},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"nbf": 9_999_999_999},
        {"nbf": datetime.now(UTC) + timedelta(hours=1)},
        {"nbf": float("inf")},
        {"nbf": float("nan")},
        {"nbf": "later"},
        {"nbf": []},
        {"type": "refresh"},
        {"type": "Access"},
        {"type": ""},
        {"type": 1},
        {"type": ["access"]},
    ],
)
def test_only_access_tokens_that_are_valid_now_get_in(verifier: SharedSecretVerifier, claims: dict[str, Any]) -> None:
    refused(verifier, token(SECRET, **{"user_id": 1, **claims}))


def test_the_clock_of_the_issuer_may_be_some_seconds_ahead(verifier: SharedSecretVerifier) -> None:
    verifier.verified(token(SECRET, user_id=1, nbf=int(time()) + NOT_BEFORE_LEEWAY_S - 1))
    refused(verifier, token(SECRET, user_id=1, nbf=int(time()) + NOT_BEFORE_LEEWAY_S + 2))


def test_other_keys_and_other_algorithms_are_refused(verifier: SharedSecretVerifier) -> None:
    for key in ("", "another-secret-that-is-also-more-than-32-bytes", SECRET + " ", SECRET[:-1]):
        refused(verifier, forged({"alg": "HS256", "typ": "JWT"}, {"user_id": 1, "exp": 9_999_999_999}, key.encode()))
    for algorithm in ("HS384", "HS512"):
        refused(verifier, token(SECRET, algorithm=algorithm, user_id=1))
    long = SECRET * 2
    strict = SharedSecretVerifier(secret=long, algorithm="HS512")
    assert strict.verified(token(long, algorithm="HS512", user_id=1)).principal.user_id == "1"
    refused(strict, token(long, user_id=1))


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", None, [], {}, ["HS256"], 1, "HS256 ", "hs256"]
)
def test_an_unsigned_or_strangely_signed_token_is_refused(verifier: SharedSecretVerifier, algorithm: Any) -> None:
    header, claims = {"alg": algorithm, "typ": "JWT"}, {"user_id": 1, "exp": 9_999_999_999}
    refused(verifier, forged(header, claims))
    refused(verifier, forged(header, claims).rpartition(".")[0] + ".")
    refused(verifier, forged({"typ": "JWT"}, claims))


def test_a_key_that_is_public_signs_nothing() -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = jwt.encode(
        {"user_id": 1, "exp": datetime.now(UTC) + HOUR},
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "RS256",
    )
    refused(SharedSecretVerifier(secret=SECRET, algorithm="HS256"), signed)
    refused(SharedSecretVerifier(secret=public.decode(), algorithm="HS256"), signed)
    by_public_key = forged({"alg": "HS256"}, {"user_id": 1, "exp": 9_999_999_999}, public)
    refused(SharedSecretVerifier(secret=SECRET, algorithm="HS256"), by_public_key)
    refused(SharedSecretVerifier(secret=public.decode(), algorithm="HS256"), by_public_key)


GOOD_HEADER = {"alg": "HS256", "typ": "JWT"}
GARBAGE = [
    "x",
    "null",
    "a.b",
    "a.b.c",
    "..",
    "....",
    "eyJ.eyJ.eyJ",
    "é.è.ê",
    "=.=.=",
    "\x7f",
    "x" * 10_000,
    "." * 10_000,
    forged(GOOD_HEADER, []),
    forged(GOOD_HEADER, "x"),
    forged(GOOD_HEADER, 1),
    forged(GOOD_HEADER, None),
    forged([], {"user_id": 1}),
    forged("x", {"user_id": 1}),
    forged(None, {"user_id": 1}),
    forged(b"{", b"{}", raw=True),
    forged(b'{"alg":"HS256"}', b"{", raw=True),
    forged(b'{"alg":"HS256"}', b"\xff", raw=True),
    forged(b'{"alg":"HS256"}', b"", raw=True),
    forged(b'{"alg":"HS256"}', b'{"user_id":1,"exp":' + b"9" * 5000 + b"}", raw=True),
    forged(b'{"alg":"HS256"}', b'{"exp":9999999999,"user_id":' + b"9" * 5000 + b"}", raw=True),
    forged(b'{"alg":"HS256"}', b'{"user_id":1,"exp":1e999}', raw=True),
    forged(b'{"alg":"HS256"}', b'{"user_id":"\\ud800","exp":9999999999}', raw=True),
    forged(b'{"alg":"HS256"}', b"[" * 5000, raw=True),
    forged(b"[" * 5000, b"{}", raw=True),
    forged(GOOD_HEADER | {"crit": ["x"]}, {"user_id": 1, "exp": 9_999_999_999}),
    forged(GOOD_HEADER | {"crit": "x"}, {"user_id": 1, "exp": 9_999_999_999}),
    forged(GOOD_HEADER | {"kid": ["x"]}, {"user_id": 1, "exp": 9_999_999_999}),
    forged(GOOD_HEADER | {"b64": False}, {"user_id": 1, "exp": 9_999_999_999}),
]


@pytest.mark.parametrize("bearer", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_refused(verifier: SharedSecretVerifier, bearer: str) -> None:
    refused(verifier, bearer)


def test_a_token_with_any_character_changed_is_refused(verifier: SharedSecretVerifier) -> None:
    good = token(SECRET, user_id=1, role="service")
    for place, character in enumerate(good[:-1]):  # the last one has bits that mean nothing
        refused(verifier, good[:place] + ("A" if character != "A" else "B") + good[place + 1 :])
