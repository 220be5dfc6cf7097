"""Actions of customers: where they return to, until when they may approve, and what they answered.

Revision ID: 20261128_0011
Revises: 20261127_0010
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "20261128_0011"
down_revision = "20261127_0010"

COLUMNS: dict[str, Any] = {
    "return_url": sa.String(2048),
    "action_expires_at": sa.DateTime(timezone=True),
    "action_result": sa.String(16),
}
# The version before does not know the status, and would never end these payments.
REQUIRING = sa.text("SELECT count(*) FROM payments WHERE status = 'REQUIRES_ACTION'")


def upgrade() -> None:
    for name, type_ in COLUMNS.items():
        op.add_column("payments", sa.Column(name, type_))


def downgrade() -> None:
    _require_known_rows()
    for name in reversed(COLUMNS):
        op.drop_column("payments", name)


def _require_known_rows() -> None:
    """Raise CommandError unless the version before knows the status of every payment."""
    if op.get_context().dialect.name == "postgresql":
        # From here on no such row can come.
        op.execute("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE")
    if waiting := op.get_bind().execute(REQUIRING).scalar_one():
        raise CommandError(
            f"The schema cannot go back, because the version before does not know what it would find: {waiting} "
            "payments that are REQUIRES_ACTION. Cancel them, or wait until their customers have answered."
        )
