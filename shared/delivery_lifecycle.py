"""The life of a delivery: its statuses, and the kinds of its receivers. No database here."""

from enum import StrEnum


class DeliveryStatus(StrEnum):
    """The status of a delivery: `pending` and `sending` are open, the others have ended."""

    PENDING = "pending"
    """Waits for its first attempt or the next one, at `due_at`. A worker that claims it moves it to `sending`."""
    SENDING = "sending"
    """Claimed by a worker, which sends it and records the attempt. If that worker dies, the lease ends and another one
    sends it again: the receiver recognises it by its id."""
    DELIVERED = "delivered"
    """The receiver answered 2xx, or the order is confirmed or cancelled. Only a resend moves it on."""
    EXHAUSTED = "exhausted"
    """No attempt of the schedule succeeded, the receiver answered 410, the order can no longer be updated, or the
    secret of the endpoint cannot be decrypted. Only a resend moves it on."""
    CANCELLED = "cancelled"
    """Its endpoint was disabled or deleted, its receiver is gone, or the order must not be updated any more. An attempt
    that was running meanwhile makes it `delivered` if the receiver accepts it. Otherwise only a resend moves it on,
    once the endpoint is enabled."""


OPEN_DELIVERY = (DeliveryStatus.PENDING, DeliveryStatus.SENDING)


class DeliveryKind(StrEnum):
    """The kind of receiver that a delivery goes to."""

    ENDPOINT = "endpoint"
    CALLBACK = "callback"
    # The order service, which gets an update of the order instead of a webhook.
    ORDER = "order"
