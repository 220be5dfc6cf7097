"""The errors that one package raises and another one handles.

`api/problem_handlers.py` says which error has which code, and `api/problems.py` which status a code has.

PaymentsError
├── ConfigurationError          a setting stops the start; the text names the variable
├── SchemaOutdated              the database is older than the code; the text names the command
├── Refused                     the request cannot be done; nothing was written
│   ├── PaymentInProgress       the order has a live payment that is not settled
│   ├── OrderAlreadyPaid        the order has a completed payment
│   ├── PaymentNotCancellable   the payment has a status in which it is never cancelled
│   ├── PaymentNotCapturable    the payment is not AUTHORIZED, or its authorization is over
│   ├── NoActionRequired        the payment does not wait for its customer
│   ├── PaymentNotRefundable    the payment has a status in which it is never refunded
│   ├── RefundExceedsBalance    less is refundable than was asked for
│   ├── RefundNotCancellable    the refund is no longer PENDING
│   ├── PaymentMethodUnusable   unknown, foreign, deleted or expired
│   ├── CaptureMethodUnusable   a payment method that cannot be captured later
│   ├── OlderWorkers            a worker of an older version would do the request wrong
│   ├── PaymentMethodLimit      the user has as many as allowed
│   ├── SimulationRuleLimit     as many rules can fire as allowed
│   ├── IdempotencyKeyReused    same key, other request
│   ├── UrlRefused              no delivery may ever go to this URL; the text says why
│   ├── DeliveryInProgress      the delivery is being sent at this moment
│   ├── EndpointDisabled        the delivery's endpoint takes nothing at the moment
│   ├── EndpointDeleted         the delivery's endpoint is gone
│   └── ValueRefused            the database refused a value that passed every check before it
├── Overloaded                  a bounded queue is full; nothing was written
├── DatabaseUnavailable         nothing was written; trying again later may work
│   ├── WriteConflict           deadlock, serialization failure or stale plan: trying again now may work
│   ├── DatabaseRefused         the database does not let us in: a password, a name or a right
│   └── StatementFailed         the database calls a statement wrong: a defect, or a schema that does not fit
├── CommitUnknown               COMMIT was sent and its answer lost: ask again with the same key
└── RemoteUnavailable           a remote part other than the database gave no answer: nothing is decided
    ├── UpstreamUnavailable     a service of the platform
    └── BrokerUnavailable       Redis

The text of a Refused is for the client that made the request. The texts of DatabaseUnavailable, CommitUnknown and
RemoteUnavailable are short reasons for logs and operators. No problem document repeats them, and `last_error` of a
delivery to the order service is such a reason.
"""

from uuid import UUID


class PaymentsError(Exception):
    """The root of the tree in this module's docstring."""


class ConfigurationError(PaymentsError):
    """A setting is missing or wrong; the text has one line per variable."""


class SchemaOutdated(PaymentsError):
    """The schema of the database is older than this code."""


class Refused(PaymentsError):
    """The request cannot be done, and nothing was written."""


class PaymentInProgress(Refused):
    """Another payment of this user for this order is not settled yet.

    `payment_id` is None if that payment has just ended, or if the client may not see it. Only a client that may see
    the payment gets another `text`, with its state.
    """

    def __init__(
        self, payment_id: UUID | None, text: str = "This order already has a payment in progress. Wait for it to end."
    ) -> None:
        super().__init__(text)
        self.payment_id = payment_id


class OrderAlreadyPaid(Refused):
    """This user has paid this order, with the payment `payment_id`; None if the client may not see that payment.

    Only a client that may see the payment gets another `text`, with the moment.
    """

    def __init__(
        self, payment_id: UUID | None, text: str = "This order is already paid. It needs no other payment."
    ) -> None:
        super().__init__(text)
        self.payment_id = payment_id


class PaymentNotCancellable(Refused):
    """A worker is at work on the payment, or it has ended otherwise than CANCELLED."""


class PaymentNotCapturable(Refused):
    """The payment is not AUTHORIZED, or its authorization is over."""


class NoActionRequired(Refused):
    """The payment does not wait for its customer, or no longer."""


class PaymentNotRefundable(Refused):
    """Nothing of the payment is captured, or all of it is refunded."""


class RefundExceedsBalance(Refused):
    """Less than the client asked for can be refunded: `refundable_amount`, in minor units."""

    def __init__(self, refundable_amount: int, text: str) -> None:
        super().__init__(text)
        self.refundable_amount = refundable_amount


class RefundNotCancellable(Refused):
    """The refund has left PENDING."""


class CaptureMethodUnusable(Refused):
    """The payment method is charged at once, so it cannot be captured later."""

    def __init__(self) -> None:
        super().__init__(
            "A debit card is charged at once and cannot be captured later. Leave out capture_method, or choose a "
            "credit card or a PayPal account."
        )


class PaymentMethodUnusable(Refused):
    """The payment method is unknown, another user's, deleted or expired.

    Only an expired method of the user's own has a text of its own: a client must not learn which ids other users have.
    """


class OlderWorkers(Refused):
    """A worker of an older version is alive, which would do what was asked otherwise than this version."""

    def __init__(self, what: str = "this test value") -> None:
        super().__init__(
            f"A worker of an older version is still running and does not know {what}. Try again when the upgrade has "
            "ended."
        )


class PaymentMethodLimit(Refused):
    """The user already has as many payment methods as are allowed."""


class SimulationRuleLimit(Refused):
    """As many rules of the simulation can fire as are allowed."""


class IdempotencyKeyReused(Refused):
    """The idempotency key was used for another request."""


class UrlRefused(Refused):
    """No delivery may ever go to this URL; the text says why and does not repeat it."""


class DeliveryInProgress(Refused):
    """The delivery is being sent. The result of that attempt decides whether it needs another one."""


class EndpointDisabled(Refused):
    """The endpoint of the delivery is disabled and must be enabled first."""


class EndpointDeleted(Refused):
    """The endpoint of the delivery was deleted and takes nothing any more."""


class ValueRefused(Refused):
    """The database refused a value of this request."""


class Overloaded(PaymentsError):
    """A bounded queue is full, or closed by a shutdown; nothing was written."""


class DatabaseUnavailable(PaymentsError):
    """The database was unreachable, locked, out of connections or not ready for us; nothing was written."""


class WriteConflict(DatabaseUnavailable):
    """PostgreSQL rolled the transaction back: for another one, or because the plan of a statement was stale."""


class DatabaseRefused(DatabaseUnavailable):
    """The database refused this service: its password, the name of the database or the schema, or a right.

    It passes when the operator has mended it. The text is for operators and says what was refused.
    """


class StatementFailed(DatabaseUnavailable):
    """The database called a statement wrong. That is a defect of this service, or a schema that does not fit it."""


class CommitUnknown(PaymentsError):
    """The answer to COMMIT was lost. The transaction was committed as a whole or not at all; which is not known."""


class RemoteUnavailable(PaymentsError):
    """A remote part gave no usable answer. It is not known whether it did what it was asked to do.

    `retry_after_s` is the number of seconds for which another try is not worth it.
    """

    def __init__(self, reason: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class UpstreamUnavailable(RemoteUnavailable):
    """A service of the platform gave no usable answer."""


class BrokerUnavailable(RemoteUnavailable):
    """Redis gave no answer in time."""
