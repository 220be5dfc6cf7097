"""Settings of keys and of authentication."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from shared.config.values import EMPTY_IS_UNSET, LOWER_CASE, HttpUrl

DEVELOPMENT_SECRET = "development-only-secret-of-the-payment-service"  # noqa: S105 - refused outside loopback
# RFC 7518, 3.2: a key of HS256 is at least as long as the hash.
SECRET_BYTES_MIN = 32
# Production refuses what is shorter: 128 bits are the least that nobody can search through.
SECRET_BYTES_REQUIRED = 16

type AuthMode = Literal["local", "local_then_remote", "remote"]
type ServiceScope = Literal["all", "created"]


class KeySettings(BaseSettings):
    """Keys."""

    jwt_secret_key: SecretStr = Field(
        default=SecretStr(DEVELOPMENT_SECRET),
        description="The secret that verifies the tokens of users. The built-in one works on loopback in development "
        "only.",
    )
    jwt_algorithm: Literal["HS256", "HS384", "HS512"] = Field(
        default="HS256",
        description="The one algorithm that a token signed with `JWT_SECRET_KEY` may have: `HS256`, `HS384` or "
        "`HS512`.",
    )
    data_key: SecretStr | None = Field(
        default=None,
        description="The key of fingerprints and of stored secrets; unset = derived from `JWT_SECRET_KEY`. Changing it "
        "makes the secrets of endpoints unreadable and API keys invalid.",
    )
    webhook_signing_secret: SecretStr | None = Field(
        default=None,
        description="The secret from which the secrets of callbacks are derived; unset = derived from `DATA_KEY`.",
    )


class RoleSettings(BaseSettings):
    """Roles."""

    service_scope: Annotated[ServiceScope, LOWER_CASE] = Field(
        default="all",
        description="What services may do. `all`: they see every payment and manage the payment methods of the users "
        "that they name. `created`: they see the payments that they created and no user's methods, as in 0.1.",
    )


class AuthSettings(BaseSettings):
    """The auth service and public keys."""

    auth_service_url: HttpUrl = Field(
        default=None, description="The auth service; unset = it is not asked about tokens."
    )
    auth_mode: Annotated[AuthMode | None, LOWER_CASE, EMPTY_IS_UNSET] = Field(
        default=None,
        description="`local`: the signature decides. `local_then_remote`: then the auth service too, unless the token "
        "carries a role. `remote`: the auth service alone, which knows users only. API keys are checked here in every "
        "mode. Unset = `local_then_remote` with `AUTH_SERVICE_URL`, else `local`.",
    )
    auth_cache_s: float = Field(
        default=10,
        ge=0,
        le=300,
        description="Seconds for which the answer of the auth service about a token is kept, never past the token's "
        "end; 0 = it is asked every time.",
    )
    auth_timeout_s: float = Field(
        default=2, gt=0, le=30, description="Seconds that a call to the auth service or to `JWT_JWKS_URL` may take."
    )
    auth_connections_max: int = Field(
        default=20, ge=1, le=1000, description="Connections of one process to the auth service and to `JWT_JWKS_URL`."
    )
    jwt_jwks_url: HttpUrl = Field(
        default=None,
        description="Where public keys (RS256, ES256, EdDSA) are found that verify tokens instead of `JWT_SECRET_KEY`.",
    )
    jwt_jwks_cache_s: float = Field(
        default=300,
        gt=0,
        le=86_400,
        description="Seconds after which public keys are fetched again. While `JWT_JWKS_URL` does not answer, they are "
        "used for twelve times as long.",
    )
