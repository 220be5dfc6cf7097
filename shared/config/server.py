"""Settings of every process: where it listens, where its data is, how often a client may ask, and how it logs."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from shared.config.values import (
    COMMA_SEPARATED,
    EMPTY_IS_UNSET,
    LOWER_CASE,
    UPPER_CASE,
    DatabaseUrl,
    Network,
    Rate,
    RedisUrl,
)
from shared.config.web_addresses import BaseUrl, Origin, RootPath


class ServerSettings(BaseSettings):
    """Listening and logging."""

    host: str = Field(
        default="127.0.0.1",
        description="The address that the API listens on. The images set 0.0.0.0.",
    )
    port: int = Field(default=8009, ge=1, le=65_535, description="The TCP port that the API listens on.")
    root_path: RootPath = Field(
        default=None,
        description="The prefix that a proxy strips from paths before it forwards requests, such as `/shop`. It is "
        "part of every path that the API sends.",
    )
    public_url: BaseUrl = Field(
        default=None,
        description="What links begin with that leave the service, with the proxy's prefix, such as "
        "`https://pay.example/shop`. Unset = `http://127.0.0.1:PORT` if `HOST` is loopback, else no such links.",
    )
    cors_origins: Annotated[tuple[Origin, ...], *COMMA_SEPARATED] = Field(
        default=(),
        description="Origins such as `https://shop.example`, separated by commas, whose pages may use `/api/v1` in a "
        "browser; unset = none.",
    )
    request_timeout_s: float = Field(
        default=30,
        gt=0,
        le=300,
        description="Seconds that a request may take to arrive at the API. After that it is answered with 408.",
    )
    metrics_port: int = Field(
        default=0,
        ge=0,
        le=65_535,
        description="The TCP port on which a worker serves `/metrics`, `/health` and `/health/ready`; 0 = off.",
    )
    environment: Annotated[Literal["development", "production"], LOWER_CASE] = Field(
        default="development",
        description="`development` or `production`, which refuses the built-in secrets and keys under 16 bytes, "
        "never advances the clock, and wants `SIMULATION_SPEED` 1. `SIMULATION`, `DASHBOARD` and "
        "`WEBHOOK_ALLOW_HTTP` are off there unless they are set, and "
        "deliveries reach loopback only if `WEBHOOK_ALLOWED_NETWORKS` opens it.",
    )
    dashboard: Annotated[Literal["on", "off"] | None, LOWER_CASE, EMPTY_IS_UNSET] = Field(
        default=None,
        description="`on` serves the [dashboard](dashboard.md) at `/dashboard`; `off` does not. Unset = `on` in "
        "development and `off` in production.",
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], UPPER_CASE] = Field(
        default="INFO", description="The least severe level that is logged: `DEBUG`, `INFO`, `WARNING` or `ERROR`."
    )
    log_format: Annotated[Literal["json", "console"], LOWER_CASE] = Field(
        default="json",
        description="`json` writes one object per line. `console` is for people, and leaves out polls unless "
        "`LOG_LEVEL` is DEBUG. `payments up` and `migrate` use `console` on a terminal.",
    )


class StorageSettings(BaseSettings):
    """The database and Redis."""

    database_url: DatabaseUrl = Field(
        default="sqlite:///var/payments.db",
        validate_default=True,
        # It may have a password anywhere.
        repr=False,
        description="The database: an SQLite file, or `postgresql://user:password@host:5432/database` with the "
        "[parameters](operations.md#the-parameters-of-database_url) of libpq.",
    )
    database_schema: str = Field(
        default="payments",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="The PostgreSQL schema of our tables, so that the database may be shared with other services.",
    )
    database_pool_size: int = Field(
        default=10, ge=2, le=200, description="Connections to the database that each process keeps."
    )
    database_timeout_s: float = Field(
        default=5, gt=0, le=60, description="Seconds that one statement, or the wait for a free connection, may take."
    )
    redis_url: RedisUrl = Field(
        default=None,
        description="The broker: `redis://`, `rediss://`, `unix://`, or Sentinels with `redis+sentinel://` and "
        "`rediss+sentinel://`. Without it only `payments up` runs, which starts a Valkey of its own.",
    )


class RateLimitSettings(BaseSettings):
    """Limits on how often a client may ask."""

    rate_limit_user: Rate = Field(
        default=None,
        description="Requests of one user (a token without a role) in a time, such as `600/minute` or "
        "`1000 per 2 hours`; unset = off. The compose file sets 600/minute.",
    )
    rate_limit_address: Rate = Field(
        default=None,
        description="Requests from one address (of IPv6: from one /64) in a time, no matter which user sends them; "
        "unset = off. The compose file sets 6000/minute.",
    )
    trusted_proxies: Annotated[tuple[Network, ...], *COMMA_SEPARATED] = Field(
        default=(),
        description="Addresses and CIDRs of proxies whose `X-Forwarded-For` is believed, or `none`. Without them the "
        "address of the connection counts.",
    )
