"""A refunded order may be paid again; a payment has one capture or one void, whatever asks for them.

Revision ID: 20261127_0010
Revises: 20261127_0009
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "20261127_0010"
down_revision = "20261127_0009"

LIVE = sa.text("status NOT IN ('FAILED', 'CANCELLED', 'REFUNDED')")
LIVE_BEFORE = sa.text("status NOT IN ('FAILED', 'CANCELLED')")
CAPTURE_OR_VOID = sa.text("kind IN ('capture', 'void')")
# On PostgreSQL these are built before the transaction of the migration, beside the running service.
ONLINE_INDEXES: dict[str, dict[str, Any]] = {
    "uq_payments_live": {
        "table_name": "payments",
        "columns": ["user_id", "order_id"],
        "unique": True,
        "postgresql_where": LIVE,
        "sqlite_where": LIVE,
    },
    "uq_gateway_ledger_capture_or_void": {
        "table_name": "gateway_ledger",
        "columns": ["payment_id"],
        "unique": True,
        "postgresql_where": CAPTURE_OR_VOID,
        "sqlite_where": CAPTURE_OR_VOID,
    },
}
# What the version before does not know, and would do wrong or not at all.
UNKNOWN_BEFORE = """
    SELECT 'payments that are ' || status AS kind, count(*) AS rows FROM payments
    WHERE status NOT IN ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED') GROUP BY status
    UNION ALL
    SELECT 'payments that are ' || status || ' for ' || operation, count(*) FROM payments
    WHERE status IN ('PENDING', 'PROCESSING') AND operation IS NOT NULL GROUP BY status, operation
    UNION ALL
    SELECT 'refunds that are ' || status, count(*) FROM refunds
    WHERE status IN ('PENDING', 'PROCESSING') GROUP BY status
    ORDER BY kind
"""


def upgrade() -> None:
    inspector = sa.inspect(op.get_bind())
    for name, index in ONLINE_INDEXES.items():
        if not inspector.has_index(index["table_name"], name):
            op.create_index(name, **index)
    op.drop_index("uq_payments_live_order", "payments")


def downgrade() -> None:
    _require_known_rows()
    op.create_index(
        "uq_payments_live_order",
        "payments",
        ["user_id", "order_id"],
        unique=True,
        postgresql_where=LIVE_BEFORE,
        sqlite_where=LIVE_BEFORE,
    )
    for name, index in reversed(ONLINE_INDEXES.items()):
        op.drop_index(name, index["table_name"])


def _require_known_rows() -> None:
    """Raise CommandError unless the version before knows the status of every payment, and nothing else is open."""
    if op.get_context().dialect.name == "postgresql":
        # From here on no such row can come.
        op.execute("LOCK TABLE payments, refunds IN ACCESS EXCLUSIVE MODE")
    if found := [f"{row.rows} {row.kind}" for row in op.get_bind().execute(sa.text(UNKNOWN_BEFORE))]:
        raise CommandError(
            f"The schema cannot go back, because the version before does not know what it would find: "
            f"{', '.join(found)}. Let open operations end, and restore a backup if other such payments are left."
        )
