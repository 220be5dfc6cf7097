"""Key pairs of the platform, and settings that look their public keys up."""

import time
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from shared.config.settings import Settings
from tests.support.auth_modes import MakeSettings
from tests.support.auth_standins import KeyServer


@dataclass
class Signer:
    """A key pair of the platform."""

    private: Any
    algorithm: str
    jwk: dict[str, Any]

    def token(self, *, kid: str | None = "", **claims: Any) -> str:
        values = {"user_id": 1, "type": "access", "exp": int(time.time()) + 3600, **claims}
        headers = {} if kid is None else {"kid": kid or self.jwk["kid"]}
        return jwt.encode(values, self.private, self.algorithm, headers=headers)


def signer(kind: str, kid: str | None = None) -> Signer:
    private: Any
    match kind:
        case "RS256":
            private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            jwk = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
        case "ES256":
            private = ec.generate_private_key(ec.SECP256R1())
            jwk = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
        case _:
            private = ed25519.Ed25519PrivateKey.generate()
            jwk = OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return Signer(private, kind, {**jwk, "kid": kid or kind})


def key_settings(make_settings: MakeSettings, server: KeyServer, **changes: Any) -> Settings:
    return make_settings(jwt_jwks_url=f"{server.url}/keys", **changes)
