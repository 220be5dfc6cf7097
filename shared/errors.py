"""Every error that one room may raise and another act on. What HTTP answers is decided in `api/errors.py` only.

PaymentsError
├── ConfigurationError          a setting stops the start; the text names the variable
├── SchemaOutdated              the database is older than the code; the text names the command
├── Refused                     the request cannot be done; nothing was written
│   ├── PaymentInProgress       the order has a live payment that is not settled
│   ├── OrderAlreadyPaid        the order has a completed payment
│   ├── PaymentMethodUnusable   unknown, foreign, deleted or expired
│   ├── PaymentMethodLimit      the user has as many as allowed
│   ├── IdempotencyKeyReused    same key, other request
│   ├── UrlRefused              no delivery may ever go to this URL; the text says why
│   ├── DeliveryInProgress      the delivery is being sent at this moment
│   ├── EndpointDisabled        the delivery's endpoint takes nothing at the moment
│   └── ValueRefused            the database refused a value that passed every check before it
├── Overloaded                  a bounded queue is full; nothing was written
├── DatabaseUnavailable         nothing was written; trying again later may work
│   └── WriteConflict           deadlock or serialization failure: trying again now may work
├── CommitUnknown               COMMIT was sent and its answer lost: ask again with the same key
└── NeighbourUnreachable        a service of the platform gave no answer: nothing is decided
"""

from uuid import UUID


class PaymentsError(Exception):
    """The root of the tree."""


class ConfigurationError(PaymentsError):
    """A setting is missing or wrong; the text has one line per variable."""


class SchemaOutdated(PaymentsError):
    """The database's schema is older than this code."""


class Refused(PaymentsError):
    """The request cannot be done and left nothing behind."""


class PaymentInProgress(Refused):
    """Another payment of this user for this order is not settled yet."""

    def __init__(self, payment_id: UUID | None) -> None:
        super().__init__("this order has a payment in progress")
        self.payment_id = payment_id


class OrderAlreadyPaid(Refused):
    """This user has paid this order."""

    def __init__(self, payment_id: UUID) -> None:
        super().__init__("this order is already paid")
        self.payment_id = payment_id


class PaymentMethodUnusable(Refused):
    """The method is unknown, somebody else's, deleted or expired; which of them is in the text only where it may be."""


class PaymentMethodLimit(Refused):
    """The user has as many payment methods as one may have."""


class IdempotencyKeyReused(Refused):
    """The key was used for another request."""


class UrlRefused(Refused):
    """No delivery may ever go to this URL; the text says why and does not repeat it."""


class DeliveryInProgress(Refused):
    """The delivery is being sent: how that ends decides whether it needs another try."""


class EndpointDisabled(Refused):
    """The endpoint of the delivery is disabled; enabling it comes first."""


class ValueRefused(Refused):
    """The database refused a value of this request."""


class Overloaded(PaymentsError):
    """A queue with a limit is full."""


class DatabaseUnavailable(PaymentsError):
    """The database did not do it: unreachable, locked or out of connections."""


class WriteConflict(DatabaseUnavailable):
    """Two transactions met (deadlock, serialization failure) and this one lost; it left nothing behind."""


class CommitUnknown(PaymentsError):
    """The answer to COMMIT was lost: the transaction happened entirely or not at all, and nobody told us which."""


class NeighbourUnreachable(PaymentsError):
    """A service of the platform gave no answer that counts; nobody knows whether it did what it was asked to."""

    def __init__(self, why: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s  # for how long it is not worth asking again
