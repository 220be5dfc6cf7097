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

from shared.config.processing import AcceptanceSettings, GatewaySettings, WorkerSettings
from shared.config.security import (
    DEVELOPMENT_SECRET,
    SECRET_BYTES_MIN,
    AuthMode,
    AuthSettings,
    KeySettings,
    RoleSettings,
)
from shared.config.server import RateLimitSettings, ServerSettings, StorageSettings
from shared.config.upstreams import OrderServiceSettings, UpstreamSettings
from shared.config.values import ONE_DAY_S, Network, is_loopback, reason_of
from shared.config.webhooks import WebhookSettings
from shared.errors import ConfigurationError

log = structlog.get_logger(__name__)

# Seconds that a worker may need beside the longest delay of the gateway before its lease ends.
LEASE_MARGIN_S = 10
RETRY_WAIT_MAX_S = 30 * ONE_DAY_S


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
        """Log each setting that works but is not safe enough to stay as it is."""
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
