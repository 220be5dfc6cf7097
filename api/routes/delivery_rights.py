"""Who may see what of a delivery, beyond that it exists: where it goes, and what its receiver answered."""

from api.auth.principal import Principal, Role
from shared.config.settings import Settings
from shared.delivery_lifecycle import DeliveryKind
from shared.webhooks.delivery_log import Delivery


def may_see_url(principal: Principal, delivery: Delivery) -> bool:
    """Return whether the principal is an admin or has given the URL.

    An endpoint's URL was given by its creator, that of a callback by the creator of the payment.
    """
    return principal.role == Role.ADMIN or principal.actor == (
        delivery.endpoint_created_by or delivery.payment_created_by
    )


def may_see_answers(principal: Principal, delivery: Delivery, settings: Settings) -> bool:
    """Return whether the principal may read what the receiver answered.

    Admins may, and the creator of an endpoint. The creator of a payment may read the answers to its callbacks, unless
    WEBHOOK_ALLOWED_NETWORKS opens private networks: every user could then read what answers there.
    """
    if principal.role == Role.ADMIN:
        return True
    if delivery.kind is DeliveryKind.CALLBACK and settings.webhook_allowed_networks:
        return False
    return delivery.kind is not DeliveryKind.ORDER and may_see_url(principal, delivery)
