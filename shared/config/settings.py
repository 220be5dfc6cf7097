"""The settings of a process: all groups together, what must hold between them, and what follows from them.

Modules receive values; no other module looks at the environment.
"""

from functools import cached_property
from ipaddress import ip_network
from typing import Any, Self

import structlog
from pydantic import ValidationError, model_validator
from pydantic_settings import SettingsConfigDict
from sqlalchemy.engine import URL, make_url

from shared.config.database_url import DEFAULT_PORT, PostgresTarget, postgres_target
from shared.config.processing import AcceptanceSettings, GatewaySettings, WorkerSettings
from shared.config.redis_url import parse_redis_url
from shared.config.security import (
    DEVELOPMENT_SECRET,
    SECRET_BYTES_MIN,
    SECRET_BYTES_REQUIRED,
    AuthMode,
    AuthSettings,
    KeySettings,
    RoleSettings,
)
from shared.config.server import RateLimitSettings, ServerSettings, StorageSettings
from shared.config.services import database_services, service_of
from shared.config.upstreams import OrderServiceSettings, UpstreamSettings
from shared.config.values import ONE_DAY_S, Network, Service, is_loopback, reason_of
from shared.config.webhooks import WebhookSettings
from shared.errors import ConfigurationError

log = structlog.get_logger(__name__)

# Seconds that a worker may need beside the longest delay of the gateway before its lease ends.
LEASE_MARGIN_S = 10
RETRY_WAIT_MAX_S = 30 * ONE_DAY_S
# The address of this machine itself where HOST stands for all of its addresses.
LOCAL_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


class Settings(
    ServerSettings,
    StorageSettings,
    KeySettings,
    AuthSettings,
    RoleSettings,
    OrderServiceSettings,
    UpstreamSettings,
    GatewaySettings,
    AcceptanceSettings,
    RateLimitSettings,
    WorkerSettings,
    WebhookSettings,
):
    """The configuration. A field is named like its environment variable, in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    @model_validator(mode="after")
    def _bounds_that_depend_on_each_other(self) -> Self:
        problems = []
        if self.payment_processing_delay_min > self.payment_processing_delay_max:
            problems.append("PAYMENT_PROCESSING_DELAY_MIN: must not exceed PAYMENT_PROCESSING_DELAY_MAX")
        if self.min_payment_amount > self.max_payment_amount:
            problems.append("MIN_PAYMENT_AMOUNT: must not exceed MAX_PAYMENT_AMOUNT")
        if self.lease_s <= self._gateway_s:
            problems.append(f"LEASE_S: must exceed PAYMENT_PROCESSING_DELAY_MAX + {LEASE_MARGIN_S} s")
        if self.order_service_url and self.lease_s <= self._gateway_s + self.order_check_max_s:
            longest = "PAYMENT_PROCESSING_DELAY_MAX + ORDER_NOT_FOUND_AFTER_S + 2 * ORDER_TIMEOUT_S"
            problems.append(f"LEASE_S: must exceed {longest} + {LEASE_MARGIN_S} s")
        if self.auth_mode in {"local_then_remote", "remote"} and not self.auth_service_url:
            problems.append(f"AUTH_MODE: {self.auth_mode} needs AUTH_SERVICE_URL, which must be set")
        if self.webhook_lease_s <= self.webhook_timeout + LEASE_MARGIN_S:
            problems.append(f"WEBHOOK_LEASE_S: must exceed WEBHOOK_TIMEOUT + {LEASE_MARGIN_S} s")
        if any(not 0 <= wait <= RETRY_WAIT_MAX_S for wait in self.webhook_retry_schedule):
            problems.append("WEBHOOK_RETRY_SCHEDULE: every wait must be between 0 s and 30 days")
        if self._is_reachable_from_outside and self.jwt_secret_key.get_secret_value() == DEVELOPMENT_SECRET:
            problems.append(
                "JWT_SECRET_KEY: must be set: the built-in development secret works on loopback in development only"
            )
        if self._is_reachable_from_outside and self.data_key_text == DEVELOPMENT_SECRET:
            problems.append("DATA_KEY: must be set: the built-in one works on loopback in development only")
        if self.environment == "production" and self.simulation_speed != 1:
            problems.append("SIMULATION_SPEED: must be 1 in production, where service time is real time")
        if self.environment == "production":
            problems += [
                f"{name}: must have at least {SECRET_BYTES_REQUIRED} bytes in production; {SECRET_BYTES_MIN} are better"
                for name, secret in self._secrets
                if len(secret.encode()) < SECRET_BYTES_REQUIRED
            ]
        if problems:
            raise ConfigurationError("\n".join(problems))
        return self

    @property
    def _gateway_s(self) -> float:
        return self.payment_processing_delay_max / 1000 + LEASE_MARGIN_S

    @property
    def _is_reachable_from_outside(self) -> bool:
        return self.environment == "production" or not is_loopback(self.host)

    @property
    def link_base(self) -> str | None:
        """What links begin with that leave the service; None where nobody has said how clients reach it."""
        if self.public_url:
            return self.public_url
        if not is_loopback(self.host):
            return None
        host = f"[{self.host}]" if ":" in self.host else "127.0.0.1"
        return f"http://{host}:{self.port}"

    @property
    def local_host(self) -> str:
        """The host at which this machine itself reaches the API, as it stands in a URL."""
        host = LOCAL_HOSTS.get(self.host, self.host)
        return f"[{host}]" if ":" in host else host

    @property
    def local_url(self) -> str:
        """Where this machine itself reaches the API."""
        return f"http://{self.local_host}:{self.port}"

    @property
    def steered_delay_max_ms(self) -> int:
        """The longest delay of a steered call to the gateway, in milliseconds: a claim must hold for it."""
        return max(0, min(60_000, int((self.lease_s - 10) * 1000)))

    @property
    def is_simulation_on(self) -> bool:
        """SIMULATION as set; if it is not, on in development only."""
        return self.simulation == "on" if self.simulation else self.environment == "development"

    @property
    def is_clock_steerable(self) -> bool:
        """Whether service time may be advanced: where the simulation is on, but never in production."""
        return self.is_simulation_on and self.environment == "development"

    @property
    def is_dashboard_on(self) -> bool:
        """DASHBOARD as set; if it is not, on in development only."""
        return self.dashboard == "on" if self.dashboard else self.environment == "development"

    @property
    def takes_sign_in_links(self) -> bool:
        """Links that sign in without a token are for the developer's own machine only."""
        return self.is_dashboard_on and self.environment == "development" and is_loopback(self.host)

    @property
    def effective_auth_mode(self) -> AuthMode:
        """AUTH_MODE as set; if it is not, `local_then_remote` with an auth service and `local` without one."""
        return self.auth_mode or ("local_then_remote" if self.auth_service_url else "local")

    @property
    def order_check_max_s(self) -> float:
        """The most seconds that one claim may spend on reading an order, whatever the order service does."""
        return self.order_not_found_after_s + 2 * self.order_timeout_s

    @property
    def data_key_text(self) -> str:
        """The secret from which the keys of the keyring are derived: DATA_KEY, or JWT_SECRET_KEY without it."""
        return (self.data_key or self.jwt_secret_key).get_secret_value()

    @property
    def _secrets(self) -> list[tuple[str, str]]:
        """The secrets in use, by the name of their variable."""
        secrets = [("JWT_SECRET_KEY", self.jwt_secret_key.get_secret_value()), ("DATA_KEY", self.data_key_text)]
        if self.webhook_signing_secret is not None:
            secrets.append(("WEBHOOK_SIGNING_SECRET", self.webhook_signing_secret.get_secret_value()))
        return secrets

    @property
    def is_sqlite(self) -> bool:
        """The database is a file on this machine, which one process writes at a time."""
        return self.database_url.startswith("sqlite")

    @cached_property
    def delivery_networks(self) -> tuple[Network, ...]:
        """Networks that a client's URL may reach although they are private: as set, else loopback in development."""
        if self.webhook_allowed_networks is not None:
            return self.webhook_allowed_networks
        if self.environment == "development":
            return (ip_network("127.0.0.0/8"), ip_network("::1/128"))
        return ()

    @cached_property
    def own_ports(self) -> frozenset[int]:
        """Ports of ours, of the database and of Redis: no delivery goes there, whatever networks are allowed."""
        # A server that is reached by a socket of its machine may listen on its port as well.
        of_database = (self.postgres.ports or (DEFAULT_PORT,)) if self.postgres else ()
        ports = {self.port, self.metrics_port, *of_database, *(service.port for service in self._stores)}
        return frozenset(ports - {0})

    @cached_property
    def closed_services(self) -> tuple[Service, ...]:
        """Services of ours to which no delivery goes, whatever networks are allowed."""
        upstreams = (service_of(url) for url in (self.auth_service_url, self.jwt_jwks_url) if url)
        return (*self._stores, *filter(None, (self._listener,)), *upstreams)

    @cached_property
    def services_closed_to_users(self) -> tuple[Service, ...]:
        """Services of ours to which nothing goes that a user has given the URL of."""
        orders = (service_of(self.order_service_url),) if self.order_service_url else ()
        return self.closed_services + orders

    @property
    def _listener(self) -> Service | None:
        """The API, unless it listens on every address of its machine."""
        return None if self.host in {"0.0.0.0", "::", ""} else Service(self.host.lower(), self.port)  # noqa: S104

    @property
    def _stores(self) -> tuple[Service, ...]:
        """The database and Redis, unless they are a file or a socket of this machine."""
        redis = parse_redis_url(self.redis_url).hosts if self.redis_url else ()
        return (*database_services(self.postgres), *(Service(host.lower(), port) for host, port in redis))

    @property
    def allows_http_webhooks(self) -> bool:
        """Whether a new URL for webhooks may begin with http://."""
        return self.environment == "development" if self.webhook_allow_http is None else self.webhook_allow_http

    @property
    def sqlalchemy_url(self) -> URL:
        """`database_url` parsed. Printing it hides the password only in its usual place: print `database_name`."""
        return make_url(self.database_url)

    @property
    def postgres(self) -> PostgresTarget | None:
        """What `database_url` says about a PostgreSQL; None for SQLite."""
        return None if self.is_sqlite else postgres_target(self.sqlalchemy_url)

    @property
    def database_name(self) -> str:
        """The name of the database for logs and messages, without anything that may be secret."""
        return str(self.postgres or f"sqlite:///{self.sqlalchemy_url.database}")

    def warn(self) -> None:
        """Log each setting that works but is not safe enough to stay as it is; to people, development in one line."""
        reaches_loopback = self.webhook_allowed_networks is None and bool(self.delivery_networks)
        are_told = self.log_format == "console" and any(secret == DEVELOPMENT_SECRET for _name, secret in self._secrets)
        if are_told:
            what = "Built-in secrets are in use" + (" and webhooks may reach loopback" if reaches_loopback else "")
            log.warning("%s: for development only.", what)
        for name, secret in self._secrets:
            if secret == DEVELOPMENT_SECRET:
                if not are_told:
                    log.warning("settings.development_secret", variable=name)
            elif len(secret.encode()) < SECRET_BYTES_MIN:
                log.warning("settings.short_secret", variable=name, bytes_min=SECRET_BYTES_MIN)
        if self.public_url and self.root_path and not self.public_url.endswith(self.root_path):
            log.warning("settings.public_url_without_root_path", public_url=self.public_url, root_path=self.root_path)
        if reaches_loopback and not are_told:
            log.warning("settings.webhooks_may_reach_loopback", networks=[str(n) for n in self.delivery_networks])


# The groups of settings, in the order in which docs/configuration.md shows them.
GROUPS = Settings.__bases__


def load_settings(**overrides: Any) -> Settings:
    """Return the settings of this process; `overrides` (by field name) win over the environment.

    Raises ConfigurationError with one line per wrong variable. It repeats no value, because that may be a secret.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc'][:1]).upper() or 'settings'}: {reason_of(item['msg'])}"
            for item in error.errors(include_input=False, include_url=False, include_context=False)
        ]
        raise ConfigurationError("\n".join(lines)) from None
