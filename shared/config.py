"""Every setting, read once from the environment. Modules receive values; nobody else looks at the environment."""

import ipaddress
from contextlib import suppress
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

import structlog
from limits import parse_many
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from shared.errors import ConfigurationError

log = structlog.get_logger(__name__)

DEVELOPMENT_SECRET = "development-only-secret-of-the-payment-service"  # noqa: S105 - refused outside loopback
SECRET_BYTES_MIN = 32  # RFC 7518, 3.2: an HS256 key is at least as long as the hash
GATEWAY_MARGIN_S = 10  # what a worker may need beside the gateway's longest delay before its lease is over
DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
ONE_DAY_S = 86_400
RATE_LIMIT_MAX = 1_000_000_000
PORTS = range(1, 65_536)


def _with_driver(text: str) -> str:
    """The same URL with the driver we use, so that the plain `sqlite:///` and `postgresql://` forms work."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise ValueError("is not a database URL such as postgresql://user:password@host:5432/database") from error
    if url.port is not None and url.port not in PORTS:
        raise ValueError("has a port that is not between 1 and 65535")
    if url.drivername not in DRIVERS:
        raise ValueError(f"has the scheme {url.drivername!r}; use sqlite:///file or postgresql://...")
    url = url.set(drivername=DRIVERS[url.drivername])
    if url.get_backend_name() == "sqlite":
        if not url.database or ":memory:" in url.database or "mode" in url.query:
            raise ValueError("needs a file: an SQLite database in memory would lose accepted payments")
        return url.render_as_string(hide_password=False)
    if "sslmode" in url.query:  # libpq's word; asyncpg calls the same thing ssl
        mode = url.query["sslmode"]
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return url.render_as_string(hide_password=False)


def _redis_scheme(text: str) -> str:
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must start with redis://, rediss:// or unix://")
    _split(text)
    return text


def _empty_is_unset(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _comma_separated(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _http_url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    if not _split(text).hostname:
        raise ValueError("names no host")
    return text.rstrip("/")


def _split(url: str) -> SplitResult:
    """The parts of a URL whose port is one. Raises ValueError, whose text does not repeat the URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        port = 0
        parts = SplitResult("", "", "", "", "")
    if port is not None and port not in PORTS:
        raise ValueError("is not a URL with a port between 1 and 65535")
    return parts


def _rate(text: str) -> str:
    found = []
    with suppress(ValueError):  # whose words would repeat the value
        found = parse_many(text)
    if len(found) != 1 or not 1 <= found[0].amount <= RATE_LIMIT_MAX or found[0].get_expiry() > ONE_DAY_S:
        raise ValueError("is not a number of requests in a time of up to a day, such as 600/minute")
    return text


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


type NeighbourUrl = Annotated[
    str | None, BeforeValidator(_empty_is_unset), AfterValidator(lambda u: u and _http_url(u))
]
type Rate = Annotated[str | None, BeforeValidator(_empty_is_unset), AfterValidator(lambda r: r and _rate(r))]
type Network = IPv4Network | IPv6Network


class Settings(BaseSettings):
    """The configuration; `docs/configuration.md` shows the same list. Names are the environment's, in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    # -- where we listen
    host: str = "127.0.0.1"
    port: int = Field(default=8009, ge=1, le=65535)
    metrics_port: int = Field(default=0, ge=0, le=65535, description="the worker's /metrics; 0 = off")

    # -- where the truth and the carrier are
    database_url: Annotated[str, AfterValidator(_with_driver)] = Field(
        default="sqlite:///var/payments.db", validate_default=True
    )
    database_schema: str = Field(default="payments", pattern=r"^[a-z_][a-z0-9_]{0,62}$", description="PostgreSQL only")
    database_pool_size: int = Field(default=10, ge=2, le=200, description="connections per process")
    database_timeout_s: float = Field(default=5, gt=0, le=60, description="for a statement or a free connection")
    redis_url: Annotated[
        str | None, BeforeValidator(_empty_is_unset), AfterValidator(lambda u: u and _redis_scheme(u))
    ] = None

    # -- keys
    jwt_secret_key: SecretStr = SecretStr(DEVELOPMENT_SECRET)
    jwt_algorithm: Literal["HS256", "HS384", "HS512"] = "HS256"
    data_key: SecretStr | None = Field(default=None, description="unset: derived from JWT_SECRET_KEY")
    webhook_signing_secret: SecretStr | None = Field(default=None, description="unset: derived from DATA_KEY")

    # -- the neighbours, each off while unset
    auth_service_url: NeighbourUrl = None
    auth_mode: Annotated[
        Literal["local", "local_then_remote", "remote"] | None,
        BeforeValidator(_lower),
        BeforeValidator(_empty_is_unset),
    ] = Field(default=None, description="unset: local_then_remote with AUTH_SERVICE_URL, else local")
    auth_cache_s: float = Field(default=10, ge=0, le=300, description="how long the auth service's word is taken")
    auth_timeout_s: float = Field(default=2, gt=0, le=30)
    auth_connections_max: int = Field(default=20, ge=1, le=1000)
    jwt_jwks_url: NeighbourUrl = Field(default=None, description="public keys instead of JWT_SECRET_KEY")
    jwt_jwks_cache_s: float = Field(default=300, gt=0, le=86_400)
    order_service_url: NeighbourUrl = None
    order_check_timeout: float = Field(default=60, ge=0, le=86_400, description="s, while nobody answers")
    order_backoff_s: float = Field(default=1, gt=0, le=600, description="wait after the first such check; doubles")
    order_not_found_after_s: float = Field(default=3, ge=0, le=30, description="of 500s from a healthy service")
    order_timeout_s: float = Field(default=3, gt=0, le=30)
    order_connections_max: int = Field(default=50, ge=1, le=1000, description="per worker")
    breaker_failures: int = Field(default=5, ge=1, le=1000, description="in a row; then a neighbour is left alone")
    breaker_open_s: float = Field(default=2, gt=0, le=300)
    ready_timeout_s: float = Field(default=1, gt=0, le=10, description="of a neighbour's /health for /health/ready")
    ready_cache_s: float = Field(default=2, ge=0, le=60)

    # -- the simulated gateway
    payment_success_rate: float = Field(default=0.95, ge=0, le=1)
    payment_processing_delay_min: int = Field(default=1000, ge=0, le=60_000, description="ms")
    payment_processing_delay_max: int = Field(default=3000, ge=0, le=60_000, description="ms")
    payment_failure_scenarios: bool = False
    simulator_seed: str | None = Field(default=None, max_length=200)

    # -- how often somebody may ask
    rate_limit_user: Rate = Field(default=None, description="requests of one user, such as 600/minute; unset = off")
    rate_limit_address: Rate = Field(default=None, description="requests from one address; unset = off")
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_comma_separated)] = ()

    # -- what we accept
    min_payment_amount: int = Field(default=50, ge=1, description="minor units")
    max_payment_amount: int = Field(default=100_000_000, ge=1, le=2**63 - 1, description="minor units")
    max_payment_methods_per_user: int = Field(default=5, ge=1, le=100)
    accept_queue_max: int = Field(default=1000, ge=1, description="intents on their way to their commit; beyond it 503")
    accept_batch_max: int = Field(default=200, ge=1, le=1000, description="intents in one transaction")
    waiters_max: int = Field(default=5000, ge=0, description="requests held by Prefer: wait")
    idempotency_retention_h: int = Field(default=24, ge=24, le=24 * 365)

    # -- the worker
    worker_concurrency: int = Field(default=2000, ge=1, le=100_000, description="payments in the gateway at once")
    lease_s: float = Field(default=30, gt=0, le=3600)
    max_claims: int = Field(
        default=5, ge=1, le=100, description="claims without an answer before the gateway's record decides"
    )
    gateway_tries_max: int = Field(default=3, ge=1, le=20, description="tries at a gateway that says nothing happened")
    gateway_backoff_s: float = Field(default=1, gt=0, le=600, description="wait after the first such try; doubles")
    poll_delay_ms: int = Field(default=20, ge=1, le=10_000, description="how often an idle worker looks into its queue")
    relay_interval_s: float = Field(default=1, gt=0, le=60)
    relay_batch_max: int = Field(default=500, ge=1, le=5000)

    # -- webhooks
    webhook_concurrency: int = Field(default=200, ge=1, le=10_000)
    webhook_concurrency_per_host: int = Field(default=50, ge=1, le=10_000)
    webhook_timeout: float = Field(default=15, gt=0, le=120, description="s")
    webhook_lease_s: float = Field(default=30, gt=0, le=3600)
    webhook_retry_schedule: Annotated[tuple[float, ...], NoDecode, BeforeValidator(_comma_separated)] = (
        5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400,
    )  # fmt: skip  # Standard Webhooks' suggestion: the waits after each failure, s
    webhook_allowed_networks: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_comma_separated)] | None = None

    # -- how it talks
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = "INFO"
    log_format: Annotated[Literal["json", "console"], BeforeValidator(_lower)] = "json"
    environment: Annotated[Literal["development", "production"], BeforeValidator(_lower)] = "development"

    @model_validator(mode="after")
    def _bounds_that_depend_on_each_other(self) -> Self:
        problems = []
        if self.payment_processing_delay_min > self.payment_processing_delay_max:
            problems.append("PAYMENT_PROCESSING_DELAY_MIN: is above PAYMENT_PROCESSING_DELAY_MAX")
        if self.min_payment_amount > self.max_payment_amount:
            problems.append("MIN_PAYMENT_AMOUNT: is above MAX_PAYMENT_AMOUNT")
        if self.lease_s <= self._gateway_s:
            problems.append(f"LEASE_S: must exceed PAYMENT_PROCESSING_DELAY_MAX + {GATEWAY_MARGIN_S} s")
        if self.order_service_url and self.lease_s <= self._gateway_s + self.order_check_max_s:
            longest = "PAYMENT_PROCESSING_DELAY_MAX + ORDER_NOT_FOUND_AFTER_S + 2 * ORDER_TIMEOUT_S"
            problems.append(f"LEASE_S: must exceed {longest} + {GATEWAY_MARGIN_S} s")
        if self.auth_mode in {"local_then_remote", "remote"} and not self.auth_service_url:
            problems.append(f"AUTH_MODE: {self.auth_mode} needs AUTH_SERVICE_URL")
        if self.webhook_lease_s <= self.webhook_timeout + GATEWAY_MARGIN_S:
            problems.append(f"WEBHOOK_LEASE_S: must exceed WEBHOOK_TIMEOUT + {GATEWAY_MARGIN_S} s")
        if any(not 0 <= wait <= 30 * ONE_DAY_S for wait in self.webhook_retry_schedule):
            problems.append("WEBHOOK_RETRY_SCHEDULE: waits are between 0 s and 30 days")
        if self._is_reachable_from_outside and self.jwt_secret_key.get_secret_value() == DEVELOPMENT_SECRET:
            problems.append(
                "JWT_SECRET_KEY: must be set: the built-in development secret works on loopback in development only"
            )
        if self._is_reachable_from_outside and self.data_key_text == DEVELOPMENT_SECRET:
            problems.append("DATA_KEY: must be set: the built-in one works on loopback in development only")
        if problems:
            raise ConfigurationError("\n".join(problems))
        return self

    @property
    def _gateway_s(self) -> float:
        return self.payment_processing_delay_max / 1000 + GATEWAY_MARGIN_S

    @property
    def _is_reachable_from_outside(self) -> bool:
        return self.environment == "production" or not is_loopback(self.host)

    @property
    def effective_auth_mode(self) -> Literal["local", "local_then_remote", "remote"]:
        """Who decides about tokens: as set, else both as soon as there is an auth service."""
        return self.auth_mode or ("local_then_remote" if self.auth_service_url else "local")

    @property
    def order_check_max_s(self) -> float:
        """The longest that one claim may spend on reading an order, whatever the order service does."""
        return self.order_not_found_after_s + 2 * self.order_timeout_s

    @property
    def data_key_text(self) -> str:
        """The key of fingerprints and stored secrets; without DATA_KEY it hangs on JWT_SECRET_KEY."""
        return (self.data_key or self.jwt_secret_key).get_secret_value()

    @property
    def is_sqlite(self) -> bool:
        """The database is a file of this machine: one process writes it."""
        return self.database_url.startswith("sqlite")

    @cached_property
    def delivery_networks(self) -> tuple[Network, ...]:
        """Networks that a client's URL may reach although they are private: as set, else loopback in development."""
        if self.webhook_allowed_networks is not None:
            return self.webhook_allowed_networks
        if self.environment == "development":
            return (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
        return ()

    @cached_property
    def own_ports(self) -> frozenset[int]:
        """Ports on loopback that are ours: no delivery goes there, whatever networks are allowed."""
        ports = {self.port, self.metrics_port}
        for url in (self.database_url, self.redis_url):
            if url and not url.startswith(("sqlite", "unix")):
                ports.add(make_url(url).port or (5432 if url.startswith("postgresql") else 6379))
        return frozenset(ports - {0})

    @property
    def sqlalchemy_url(self) -> URL:
        """`database_url` parsed; printing it hides the password."""
        return make_url(self.database_url)

    def warn(self) -> None:
        """Log what works but should not stay so."""
        for name, secret in (
            ("JWT_SECRET_KEY", self.jwt_secret_key.get_secret_value()),
            ("DATA_KEY", self.data_key_text),
        ):
            if secret == DEVELOPMENT_SECRET:
                log.warning("settings.development_secret", variable=name)
            elif len(secret.encode()) < SECRET_BYTES_MIN:
                log.warning("settings.short_secret", variable=name, bytes_min=SECRET_BYTES_MIN)
        if self.webhook_allowed_networks is None and self.delivery_networks:
            log.warning("settings.webhooks_may_reach_loopback", networks=[str(n) for n in self.delivery_networks])


def is_loopback(host: str) -> bool:
    """`host` is this machine and nobody else can connect to it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process; `overrides` (by field name) win over the environment.

    Raises ConfigurationError with one line per wrong variable; values are not repeated, they may be secrets.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc'][:1]).upper() or 'settings'}: {_reason(item['msg'])}"
            for item in error.errors(include_input=False, include_url=False, include_context=False)
        ]
        raise ConfigurationError("\n".join(lines)) from None


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ")
