"""A principal: the user, service or admin that a valid token or API key names."""

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

ADMIN_ROLES = frozenset({"admin", "payment_admin", "super_admin"})
SERVICE_ROLE = "service"


class Role(StrEnum):
    """The role of a principal, from the fewest rights to the most."""

    USER = "user"
    SERVICE = "service"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """The bearer of a valid token or API key.

    `api_key_id` is for logs only: with a key, the principal is the same as with a token of that name and role.
    """

    user_id: str
    role: Role
    api_key_id: UUID | None = field(default=None, compare=False)

    @property
    def actor(self) -> str:
        """The name of the principal in histories: `user:1`, `service:orders`, `admin:7`."""
        return f"{self.role}:{self.user_id}"

    @property
    def manages_endpoints_of(self) -> str | None:
        """The creator whose webhook endpoints the principal may manage; None = all of them."""
        return None if self.role == Role.ADMIN else self.actor
