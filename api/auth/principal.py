"""A principal: the user, service or admin that a valid token names, and what it may see."""

from dataclasses import dataclass
from enum import StrEnum

from shared.payments.find import Visible

ADMIN_ROLES = frozenset({"admin", "payment_admin", "super_admin"})
SERVICE_ROLE = "service"


class Role(StrEnum):
    """The role of a principal, from the fewest rights to the most."""

    USER = "user"
    SERVICE = "service"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """The bearer of a valid token."""

    user_id: str
    role: Role

    @property
    def actor(self) -> str:
        """The name of the principal in histories: `user:1`, `service:orders`, `admin:7`."""
        return f"{self.role}:{self.user_id}"

    @property
    def visible(self) -> Visible:
        """The payments that the principal may see."""
        match self.role:
            case Role.USER:
                return Visible(user_id=self.user_id)
            case Role.SERVICE:
                return Visible(created_by=self.actor)
            case Role.ADMIN:
                return Visible()

    @property
    def manages_endpoints_of(self) -> str | None:
        """The creator whose webhook endpoints the principal may manage; None = all of them."""
        return None if self.role == Role.ADMIN else self.actor
