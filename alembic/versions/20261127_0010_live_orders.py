"""A refunded order may be paid again; a payment has one capture or one void, whatever asks for them.

Revision ID: 20261127_0010
Revises: 20261127_0009
"""

import sqlalchemy as sa
from alembic import op

revision = "20261127_0010"
down_revision = "20261127_0009"

LIVE = sa.text("status NOT IN ('FAILED', 'CANCELLED', 'REFUNDED')")
LIVE_BEFORE = sa.text("status NOT IN ('FAILED', 'CANCELLED')")
CAPTURE_OR_VOID = sa.text("kind IN ('capture', 'void')")


def upgrade() -> None:
    op.create_index(
        "uq_payments_live",
        "payments",
        ["user_id", "order_id"],
        unique=True,
        postgresql_where=LIVE,
        sqlite_where=LIVE,
    )
    op.drop_index("uq_payments_live_order", "payments")
    op.create_index(
        "uq_gateway_ledger_capture_or_void",
        "gateway_ledger",
        ["payment_id"],
        unique=True,
        postgresql_where=CAPTURE_OR_VOID,
        sqlite_where=CAPTURE_OR_VOID,
    )


def downgrade() -> None:
    op.drop_index("uq_gateway_ledger_capture_or_void", "gateway_ledger")
    op.create_index(
        "uq_payments_live_order",
        "payments",
        ["user_id", "order_id"],
        unique=True,
        postgresql_where=LIVE_BEFORE,
        sqlite_where=LIVE_BEFORE,
    )
    op.drop_index("uq_payments_live", "payments")
