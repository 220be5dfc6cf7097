"""What principals may do with the payments and payment methods of users, as SERVICE_SCOPE says."""

from dataclasses import dataclass

from api.auth.principal import Principal, Role
from api.problems import Code, Problem
from shared.config.security import ServiceScope
from shared.payments.find import Visible


@dataclass(frozen=True, slots=True)
class Permissions:
    """The rules for users, services and admins.

    A service is a backend of the merchant. With the scope `all` it sees every payment and manages the payment methods
    of the users that it names. With `created` it sees the payments that it created, and no method of a user.
    """

    service_scope: ServiceScope

    def visible(self, principal: Principal) -> Visible:
        """Return the payments that the principal may see."""
        if principal.role == Role.USER:
            return Visible(user_id=principal.user_id)
        return Visible() if self._may_name_a_user(principal) else Visible(created_by=principal.actor)

    def require_named_user(self, principal: Principal, user_id: str | None) -> None:
        """Raise Problem (403) if the request names a user and the principal may not act for one."""
        if user_id is None or self._may_name_a_user(principal):
            return
        others = "services and admins" if self.service_scope == "all" else "admins"
        raise Problem(Code.FORBIDDEN, f"Only {others} may name a user here. Leave out user_id.")

    def require_merchant(self, principal: Principal) -> None:
        """Raise Problem (403) for a user: only services and admins capture and refund payments.

        Call this once it is known that the principal may see the payment: a 403 says that there is one.
        """
        if principal.role == Role.USER:
            raise Problem(
                Code.FORBIDDEN,
                "Only services and admins may capture or refund a payment. Use an API key, or a token of such a role.",
            )

    def owner_of_methods(self, principal: Principal, user_id: str | None) -> str:
        """Return the user whose payment methods are meant: the one that the request names, or the principal itself.

        Raises Problem (403) if the principal may not name a user.
        """
        self.require_named_user(principal, user_id)
        return user_id or principal.user_id

    def owner_of_method(self, principal: Principal, user_id: str | None) -> str | None:
        """Return the user to whom the method in a path must belong; None if it may be any user's.

        Only an admin need not name the user of a method. Raises Problem (403) as `owner_of_methods` does.
        """
        if user_id is None and principal.role == Role.ADMIN:
            return None
        return self.owner_of_methods(principal, user_id)

    def _may_name_a_user(self, principal: Principal) -> bool:
        return principal.role == Role.ADMIN or (principal.role == Role.SERVICE and self.service_scope == "all")
