"""Who a token names: one user, with the roles that its signed claims grant, and what they may see."""

from typing import Any

import pytest

from api.auth.permissions import Permissions
from api.auth.principal import Principal, Role
from api.auth.tokens import SharedSecretVerifier
from shared.payments.find import Visible
from tests.support.api_client import token
from tests.support.tokens import SECRET, refused

pytest_plugins = ["tests.support.auth_fixtures"]


@pytest.mark.parametrize(
    ("claims", "user_id"),
    [
        ({"user_id": 1}, "1"),
        ({"user_id": "1"}, "1"),
        ({"sub": "1"}, "1"),
        ({"sub": 1}, "1"),
        ({"user_id": 1, "sub": "1"}, "1"),
        ({"user_id": "shop"}, "shop"),
        ({"user_id": "x" * 64}, "x" * 64),
        ({"user_id": 2**63}, str(2**63)),
        ({"user_id": 1, "type": None}, "1"),
        ({"user_id": 1, "iat": 9_999_999_999}, "1"),  # the auth service's clock may be ahead
        ({"user_id": 1, "aud": "shop", "iss": "auth", "jti": 7, "email": "a@b.example"}, "1"),
    ],
)
def test_a_token_names_its_user_in_user_id_or_sub(
    verifier: SharedSecretVerifier, claims: dict[str, Any], user_id: str
) -> None:
    assert verifier.verified(token(SECRET, **claims)).principal == Principal(user_id, Role.USER)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"user_id": 1, "sub": "2"},
        {"user_id": 1, "sub": ""},
        {"user_id": 1, "sub": ["1"]},
        {"user_id": True},
        {"user_id": False},
        {"user_id": 1.0},
        {"user_id": 1.5},
        {"user_id": []},
        {"user_id": [1]},
        {"user_id": {"id": 1}},
        {"user_id": ""},
        {"user_id": " "},
        {"user_id": "a b"},
        {"user_id": "x" * 65},
        {"user_id": "ü"},
        {"user_id": "1\n"},
        {"user_id": "\0"},
        {"user_id": 10**64},
        {"sub": True},
    ],
)
def test_a_token_that_does_not_name_one_user_is_refused(verifier: SharedSecretVerifier, claims: dict[str, Any]) -> None:
    refused(verifier, token(SECRET, **claims))


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({}, Role.USER),
        ({"role": "user"}, Role.USER),
        ({"role": "ADMIN"}, Role.USER),
        ({"role": "order_admin"}, Role.USER),
        ({"role": ""}, Role.USER),
        ({"role": 1}, Role.USER),
        ({"role": ["admin"]}, Role.USER),
        ({"roles": {"admin": True}}, Role.USER),
        ({"roles": [["admin"], {"role": "admin"}, 1, True, None]}, Role.USER),
        ({"is_admin": True, "scope": "admin", "permissions": ["admin"]}, Role.USER),
        ({"role": "service"}, Role.SERVICE),
        ({"roles": ["x", "service"]}, Role.SERVICE),
        ({"roles": "service"}, Role.SERVICE),
        ({"role": "admin"}, Role.ADMIN),
        ({"role": "payment_admin"}, Role.ADMIN),
        ({"role": "super_admin"}, Role.ADMIN),
        ({"roles": ["service", "payment_admin"]}, Role.ADMIN),
        ({"role": "user", "roles": ["admin"]}, Role.ADMIN),
    ],
)
def test_only_signed_claims_grant_a_role(verifier: SharedSecretVerifier, claims: dict[str, Any], role: Role) -> None:
    assert verifier.verified(token(SECRET, user_id=1, **claims)).principal.role == role


def test_a_principal_sees_what_its_role_and_the_scope_of_services_let_it() -> None:
    of_all, of_created = Permissions("all"), Permissions("created")
    for permissions in (of_all, of_created):
        assert permissions.visible(Principal("1", Role.USER)) == Visible(user_id="1")
        assert permissions.visible(Principal("1", Role.ADMIN)) == Visible()
    assert of_all.visible(Principal("shop", Role.SERVICE)) == Visible()
    assert of_created.visible(Principal("shop", Role.SERVICE)) == Visible(created_by="service:shop")
