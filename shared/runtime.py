"""Opens what a process needs from its settings: the only place that knows which database and which Redis."""

from dataclasses import dataclass

from shared.addresses import AddressPolicy
from shared.config import Settings
from shared.db import Database, open_database
from shared.errors import ConfigurationError
from shared.queue import Carrier, open_carrier
from shared.vault import Vault, open_vault


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the API and the worker share; `payments up` gives both the same one."""

    settings: Settings
    database: Database
    carrier: Carrier
    vault: Vault

    @property
    def address_policy(self) -> AddressPolicy:
        """Where deliveries may go."""
        return AddressPolicy(self.settings.delivery_networks, self.settings.own_ports)

    async def close(self) -> None:
        """Close every connection."""
        await self.carrier.close()
        await self.database.dispose()


def open_runtime(settings: Settings) -> Runtime:
    """The runtime of these settings; connects to nothing yet. Raises ConfigurationError without REDIS_URL."""
    if settings.redis_url is None:
        raise ConfigurationError("REDIS_URL: must be set (`payments up` starts a Valkey of its own without it)")
    return Runtime(settings, open_database(settings), open_carrier(settings.redis_url), open_vault(settings))
