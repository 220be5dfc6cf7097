"""Authorizations, captures and refunds: columns of payments, amounts, refunds and their history.

Revision ID: 20261127_0009
Revises: 20261127_0008
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261127_0009"
down_revision = "20261127_0008"

MOMENT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
COLUMNS: dict[str, Any] = {
    "capture_method": sa.String(16),
    "operation": sa.String(16),
    "operation_amount": sa.BigInteger(),
    "operation_number": sa.Integer(),
    "operation_version": sa.Integer(),
    "capture_before": MOMENT,
    "last_capture_error": JSON,
}


CLAIMED = "operation IS NULL OR coalesce(operation_claim, 0) = attempt"


def upgrade() -> None:
    for name, type_ in COLUMNS.items():
        op.add_column("payments", sa.Column(name, type_))
    _add_operation_claim()
    op.create_table(
        "payment_balances",
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("authorized", sa.BigInteger(), nullable=False),
        sa.Column("captured", sa.BigInteger(), nullable=False),
        sa.Column("refunded", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("payment_id", name="pk_payment_balances"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_payment_balances_payment_id"),
        sa.CheckConstraint("authorized > 0", name="authorized_is_positive"),
        sa.CheckConstraint("captured >= 0 AND captured <= authorized", name="captured_is_authorized"),
        sa.CheckConstraint(
            "refunded >= 0 AND reserved >= 0 AND refunded + reserved <= captured",
            name="refunded_is_captured",
        ),
    )
    op.create_table(
        "refunds",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_by", sa.String(80), nullable=False),
        sa.Column("cause", sa.String(24)),
        sa.Column("correlation_id", sa.String(128)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("lease_version", sa.Integer(), nullable=False),
        sa.Column("gateway_tries", sa.Integer(), nullable=False),
        sa.Column("due_at", MOMENT),
        sa.Column("due_reason", sa.String(24)),
        sa.Column("gateway", sa.String(32)),
        sa.Column("gateway_transaction_id", sa.String(64)),
        sa.Column("failure_code", sa.String(40)),
        sa.Column("failure_reason", sa.String(255)),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("processed_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_refunds"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_refunds_payment_id"),
        sa.UniqueConstraint("payment_id", "number", name="uq_refunds_payment_id_number"),
        sa.CheckConstraint("amount > 0", name="amount_is_positive"),
    )
    op.create_index(
        "uq_refunds_cause",
        "refunds",
        ["payment_id", "cause"],
        unique=True,
        postgresql_where=sa.text("cause IS NOT NULL"),
        sqlite_where=sa.text("cause IS NOT NULL"),
    )
    op.create_index(
        "ix_refunds_due",
        "refunds",
        ["due_at"],
        postgresql_where=sa.text("due_at IS NOT NULL"),
        sqlite_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index("ix_refunds_payment", "refunds", ["payment_id", "id"])
    op.create_table(
        "refund_history",
        sa.Column("refund_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("previous_status", sa.String(16)),
        sa.Column("new_status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(24), nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("created_by", sa.String(80), nullable=False),
        sa.PrimaryKeyConstraint("refund_id", "sequence", name="pk_refund_history"),
        sa.ForeignKeyConstraint(["refund_id"], ["refunds.id"], name="fk_refund_history_refund_id"),
    )


def _add_operation_claim() -> None:
    """Add the column that makes the table refuse the claims of versions that know no operations."""
    name = "claimed_with_operation"
    if op.get_context().dialect.name == "sqlite":
        op.add_column("payments", sa.Column("operation_claim", sa.Integer(), sa.CheckConstraint(CLAIMED, name=name)))
        return
    op.add_column("payments", sa.Column("operation_claim", sa.Integer()))
    # No row has an operation yet. Without NOT VALID, PostgreSQL would read the whole table to see that.
    op.create_check_constraint(name, "payments", CLAIMED, postgresql_not_valid=True)


def downgrade() -> None:
    op.drop_table("refund_history")
    op.drop_table("refunds")
    op.drop_table("payment_balances")
    op.drop_column("payments", "operation_claim")
    for name in reversed(COLUMNS):
        op.drop_column("payments", name)
