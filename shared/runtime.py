"""The runtime of a process: the database, the broker and the keyring that its settings name.

No other module decides which database and which Redis a process uses.
"""

from dataclasses import dataclass, replace

from shared.broker.client import Broker, open_broker
from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.errors import ConfigurationError
from shared.keyring import Keyring, open_keyring
from shared.webhooks.address_policy import AddressPolicy


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts that the API and the worker both need; `payments up` gives both the same runtime."""

    settings: Settings
    database: Database
    broker: Broker
    keyring: Keyring

    @property
    def address_policy(self) -> AddressPolicy:
        """The addresses that deliveries may reach whose URL a service or an admin has given."""
        settings = self.settings
        return AddressPolicy(settings.delivery_networks, settings.own_ports, settings.closed_services)

    @property
    def user_address_policy(self) -> AddressPolicy:
        """The addresses that deliveries may reach whose URL a user has given."""
        return replace(self.address_policy, services=self.settings.services_closed_to_users)

    async def close(self) -> None:
        """Close every connection."""
        await self.broker.close()
        await self.database.dispose()


def open_runtime(settings: Settings) -> Runtime:
    """Return the runtime of these settings. It connects to nothing yet. Raises ConfigurationError without REDIS_URL."""
    if settings.redis_url is None:
        raise ConfigurationError("REDIS_URL: must be set (`payments up` starts a Valkey of its own without it)")
    return Runtime(settings, open_database(settings), open_broker(settings.redis_url), open_keyring(settings))
