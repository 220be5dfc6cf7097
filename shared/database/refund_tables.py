"""The tables of money beyond the plain charge: what a payment's amounts are, its refunds and their history."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    UniqueConstraint,
    Uuid,
    text,
)

from shared.database.columns import UtcDateTime
from shared.database.tables import DUE, Json, OptionalJson, metadata, required

# Amounts in minor units. A payment without a row was never authorized to be captured on request and has no refund.
payment_balances = Table(
    "payment_balances",
    metadata,
    Column("payment_id", Uuid, ForeignKey("payments.id"), primary_key=True),
    required("authorized", BigInteger),
    required("captured", BigInteger),
    required("refunded", BigInteger),
    # Of refunds that have been accepted and have not ended.
    required("reserved", BigInteger),
    CheckConstraint("authorized > 0", name="authorized_is_positive"),
    CheckConstraint("captured >= 0 AND captured <= authorized", name="captured_is_authorized"),
    CheckConstraint("refunded >= 0 AND reserved >= 0 AND refunded + reserved <= captured", name="refunded_is_captured"),
)

refunds = Table(
    "refunds",
    metadata,
    Column("id", Uuid, primary_key=True),
    required("payment_id", Uuid, ForeignKey("payments.id")),
    # The payment's sequence at the move that requested the refund: its number at the gateway.
    required("number", Integer),
    required("amount", BigInteger),  # minor units, in the currency of the payment
    required("reason", String(32)),
    required("metadata", Json),
    required("created_by", String(80)),
    # What made the service request the refund itself; null = a client did.
    Column("cause", String(24)),
    Column("correlation_id", String(128)),
    required("status", String(16)),
    required("sequence", Integer),  # the length of its history
    # The number of claims so far: every write of a worker is guarded by it.
    required("lease_version", Integer),
    required("gateway_tries", Integer),  # answers that said "nothing happened"
    # When a worker must claim the refund next, at a lease's end too; null = never again.
    Column("due_at", UtcDateTime),
    # The reason that the history will give for the next claim.
    Column("due_reason", String(24)),
    Column("gateway", String(32)),
    Column("gateway_transaction_id", String(64)),
    Column("failure_code", String(40)),
    Column("failure_reason", String(255)),
    required("created_at", UtcDateTime),
    required("updated_at", UtcDateTime),
    Column("processed_at", UtcDateTime),
    # As in `payments`.
    Column("steering", OptionalJson),
    Column("simulated", OptionalJson),
    Column("held_until", UtcDateTime),  # see `payments`
    CheckConstraint("amount > 0", name="amount_is_positive"),
    UniqueConstraint("payment_id", "number"),
    Index("uq_refunds_cause", "payment_id", "cause", unique=True,
          postgresql_where=text("cause IS NOT NULL"), sqlite_where=text("cause IS NOT NULL")),
    Index("ix_refunds_due", "due_at", postgresql_where=DUE, sqlite_where=DUE),
    Index("ix_refunds_payment", "payment_id", "id"),
)  # fmt: skip

refund_history = Table(
    "refund_history",
    metadata,
    Column("refund_id", Uuid, ForeignKey("refunds.id"), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("previous_status", String(16)),
    required("new_status", String(16)),
    required("reason", String(24)),
    required("metadata", Json),
    required("created_at", UtcDateTime),
    required("created_by", String(80)),
)
