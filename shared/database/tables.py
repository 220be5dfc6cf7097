"""The tables, for SQLAlchemy Core. The packages that write them decide what may be written, and when."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import JSON

from shared.database.columns import UtcDateTime

# Characters of the longest URL, name and error that a column takes.
URL_CHARS_MAX = 2048
NAME_CHARS_MAX = 100
ERROR_CHARS_MAX = 255
Json = JSON().with_variant(JSONB(), "postgresql")
# Without a value it is null in the database, and not the JSON null.
OptionalJson = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def required(name: str, type_: Any, *items: Any, **options: Any) -> Column[Any]:
    """Return a column that is never null."""
    return Column(name, type_, *items, nullable=False, **options)


def columns_of(table: Table, *keys: str) -> list[ColumnElement[Any]]:
    """Return the columns of `table` with these keys, or all, to be selected under their keys.

    Rows then have the names that the code uses.
    """
    columns = [table.c[key] for key in keys or table.c.keys()]
    return [column if column.key == column.name else column.label(column.key) for column in columns]


payment_methods = Table(
    "payment_methods",
    metadata,
    Column("id", Uuid, primary_key=True),
    required("user_id", String(64)),
    required("type", String(16)),
    required("display_name", String(NAME_CHARS_MAX)),
    required("is_default", Boolean),
    required("is_active", Boolean),
    # A keyed hash of the card number, or of the PayPal address.
    required("fingerprint", String(64)),
    # What may be shown: brand, last four digits and expiry, or the masked address.
    required("details", Json),
    # The failure code that a test number or test address names.
    Column("scenario", String(40)),
    # The first moment at which the method is no longer valid.
    Column("expires_at", UtcDateTime),
    required("created_at", UtcDateTime),
    required("updated_at", UtcDateTime),
    Index("uq_payment_methods_card", "user_id", "fingerprint", unique=True,
          postgresql_where=text("is_active"), sqlite_where=text("is_active")),
    Index("uq_payment_methods_default", "user_id", unique=True,
          postgresql_where=text("is_active AND is_default"), sqlite_where=text("is_active AND is_default")),
)  # fmt: skip

LIVE = text("status NOT IN ('FAILED', 'CANCELLED', 'REFUNDED')")
DUE = text("due_at IS NOT NULL")
CLAIMED_WITH_OPERATION = "operation IS NULL OR coalesce(operation_claim, 0) = attempt"

payments = Table(
    "payments",
    metadata,
    Column("id", Uuid, primary_key=True),
    required("user_id", String(64)),
    required("created_by", String(80)),
    required("order_id", String(64)),
    required("payment_method_id", Uuid),
    required("amount", BigInteger),  # minor units
    required("currency", String(3)),
    Column("description", String(255)),
    required("metadata", Json),
    Column("callback_url", String(URL_CHARS_MAX)),
    Column("idempotency_key", String(255)),
    Column("correlation_id", String(128)),
    # A copy of what the gateway needs: later changes of the method do not touch it.
    required("method", Json),
    required("status", String(24)),
    required("sequence", Integer),  # the length of its history
    # The number of claims so far: every write of a worker is guarded by it.
    required("attempt", Integer, key="lease_version"),
    required("gateway_tries", Integer),  # answers that said "nothing happened"
    # When a worker must claim the payment next, at a lease's end too; null = never again.
    Column("due_at", UtcDateTime),
    # The reason that the history will give for the next claim.
    Column("due_reason", String(24)),
    Column("gateway", String(32)),
    Column("gateway_transaction_id", String(64)),
    Column("gateway_details", Json),
    # SQLite heeds no length, and its tables keep the one that they were made with.
    Column("outcome_rule", String(64).with_variant(String(16), "sqlite")),
    Column("failure_code", String(40)),
    Column("failure_reason", String(255)),
    required("created_at", UtcDateTime),
    required("updated_at", UtcDateTime),
    Column("processed_at", UtcDateTime),
    # Checks of the order that the order service did not answer. Their claims do not count against MAX_CLAIMS.
    required("order_checks", Integer, server_default=text("0")),
    # When the last such check is made; null = none has gone unanswered.
    Column("order_check_until", UtcDateTime),
    # A version that does not know these columns writes none of them: null must mean what it does.
    Column("capture_method", String(16)),  # null = automatic
    # What the payment is due for; null = its charge.
    Column("operation", String(16)),
    Column("operation_amount", BigInteger),  # of a capture, in minor units
    # The sequence and the lease version when the payment became due for it; null = the beginning. The sequence is the
    # number of a capture at the gateway, and claims are counted from the version.
    Column("operation_number", Integer),
    Column("operation_version", Integer),
    # The end of the authorization; null = there is none that could be captured.
    Column("capture_before", UtcDateTime),
    Column("last_capture_error", Json),
    # The lease version after the last claim that knew the operation. A version that knows none is refused the claim.
    Column("operation_claim", Integer, CheckConstraint(CLAIMED_WITH_OPERATION, name="claimed_with_operation")),
    # Where the customer goes from the page of the bank or of PayPal; null = there is no such page for this payment.
    Column("return_url", String(URL_CHARS_MAX)),
    # Until when the customer may approve the payment; null = nobody has been asked.
    Column("action_expires_at", UtcDateTime),
    Column("action_result", String(16)),
    # What the request for the present operation wants of its calls to the gateway; null = nothing.
    Column("steering", OptionalJson),
    # Calls of the present operation before the gateway left it open; null = none.
    Column("earlier_calls", Integer),
    # What was steered about its calls so far, by requests and by rules; null = nothing.
    Column("simulated", OptionalJson),
    # Until when a worker or a queue holds the row, in real time. Where `due_at` is the same moment, that is real time;
    # everywhere else `due_at` is service time.
    Column("held_until", UtcDateTime),
    CheckConstraint("amount > 0", name="amount_is_positive"),
    Index("uq_payments_live", "user_id", "order_id", unique=True, postgresql_where=LIVE, sqlite_where=LIVE),
    Index("ix_payments_due", "due_at", postgresql_where=DUE, sqlite_where=DUE),
    Index("ix_payments_user", "user_id", "id"),
    Index("ix_payments_order", "order_id", "id"),
    Index("ix_payments_service", "created_by", "id",
          postgresql_where=text("created_by LIKE 'service:%'"), sqlite_where=text("created_by LIKE 'service:%'")),
)  # fmt: skip

payment_history = Table(
    "payment_history",
    metadata,
    Column("payment_id", Uuid, ForeignKey("payments.id"), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("previous_status", String(24)),
    required("new_status", String(24)),
    required("reason", String(24)),
    required("metadata", Json),
    required("created_at", UtcDateTime),
    required("created_by", String(80)),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("scope", String(160), primary_key=True),  # token subject and route
    Column("key", String(255), primary_key=True),
    required("fingerprint", String(64)),
    required("object_id", Uuid),
    required("created_at", UtcDateTime),
    Index("ix_idempotency_keys_created_at", "created_at"),
)

CAPTURE_OR_VOID = text("kind IN ('capture', 'void')")

gateway_ledger = Table(
    "gateway_ledger",
    metadata,
    Column("key", String(64), primary_key=True),  # {payment}:{kind}, with the number of a step above 2
    # No foreign key: the ledger belongs to the gateway, which knows none of our tables.
    required("payment_id", Uuid),
    # 1 = authorize, sale or decline; 2 = capture or void; else the number of a capture on request or of a refund. Each
    # step happens once.
    required("step", Integer),
    required("kind", String(16)),
    required("amount", BigInteger),
    required("currency", String(3)),
    required("answer", Json),
    required("created_at", UtcDateTime),
    UniqueConstraint("payment_id", "step"),
    Index("uq_gateway_ledger_capture_or_void", "payment_id", unique=True,
          postgresql_where=CAPTURE_OR_VOID, sqlite_where=CAPTURE_OR_VOID),
)  # fmt: skip

events = Table(
    "events",
    metadata,
    Column("id", Uuid, primary_key=True),
    required("payment_id", Uuid),
    required("sequence", Integer),
    required("type", String(40)),
    required("body", Text),  # exactly as sent
    required("created_at", UtcDateTime),
    UniqueConstraint("payment_id", "sequence", "type"),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Uuid, primary_key=True),
    required("created_by", String(80)),
    required("name", String(NAME_CHARS_MAX)),
    required("url", String(URL_CHARS_MAX)),
    required("event_types", Json),
    required("enabled", Boolean),
    Column("disabled_reason", String(100)),
    required("secret", String(512)),  # encrypted
    required("created_at", UtcDateTime),
    required("updated_at", UtcDateTime),
    Column("deleted_at", UtcDateTime),
    Index("ix_webhook_endpoints_created_by", "created_by", "id"),
)

OF_ENDPOINT = text("endpoint_id IS NOT NULL")
NOT_OF_ENDPOINT = text("endpoint_id IS NULL")

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Uuid, primary_key=True),
    required("event_id", Uuid, index=False),
    required("payment_id", Uuid),
    required("kind", String(16)),
    Column("endpoint_id", Uuid),
    # The URL of a callback. That of an endpoint may change, so it is read from the endpoint.
    Column("url", String(URL_CHARS_MAX)),
    Column("correlation_id", String(128)),
    required("status", String(16)),
    # The number of claims so far: every write of a worker is guarded by it.
    required("attempt", Integer, key="lease_version"),
    # Attempts that count against the retry schedule; a resend starts at 0 again.
    required("tries", Integer, key="retries"),
    # The number of rows in delivery_attempts.
    required("attempts_made", Integer, key="attempts_total"),
    Column("due_at", UtcDateTime),
    Column("last_error", String(ERROR_CHARS_MAX)),
    required("created_at", UtcDateTime),
    required("updated_at", UtcDateTime),
    Column("delivered_at", UtcDateTime),
    Column("held_until", UtcDateTime),  # see `payments`
    Index("uq_deliveries_endpoint", "event_id", "endpoint_id", unique=True,
          postgresql_where=OF_ENDPOINT, sqlite_where=OF_ENDPOINT),
    Index("uq_deliveries_other", "event_id", "kind", unique=True,
          postgresql_where=NOT_OF_ENDPOINT, sqlite_where=NOT_OF_ENDPOINT),
    Index("ix_deliveries_due", "due_at", postgresql_where=DUE, sqlite_where=DUE),
    Index("ix_deliveries_payment", "payment_id", "id"),
    Index("ix_deliveries_of_endpoint", "endpoint_id", "id", postgresql_where=OF_ENDPOINT, sqlite_where=OF_ENDPOINT),
)  # fmt: skip

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    Column("delivery_id", Uuid, ForeignKey("deliveries.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    required("started_at", UtcDateTime),
    required("duration_ms", Integer),
    Column("status_code", Integer),
    Column("error", String(ERROR_CHARS_MAX)),
    Column("response_body", Text),
    # Where the request went; null for the order service, and for attempts of before this column.
    Column("url", String(URL_CHARS_MAX)),
)

verify_reports = Table(
    "verify_reports",
    metadata,
    Column("id", Uuid, primary_key=True),
    required("started_at", UtcDateTime),
    required("finished_at", UtcDateTime),
    required("report", Json),
)
