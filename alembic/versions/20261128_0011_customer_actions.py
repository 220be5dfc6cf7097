"""Actions of customers: where they return to, until when they may approve, and what they answered.

Revision ID: 20261128_0011
Revises: 20261127_0010
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "20261128_0011"
down_revision = "20261127_0010"

COLUMNS: dict[str, Any] = {
    "return_url": sa.String(2048),
    "action_expires_at": sa.DateTime(timezone=True),
    "action_result": sa.String(16),
}
REQUIRING = sa.text("SELECT count(*) FROM payments WHERE status = 'REQUIRES_ACTION'")


def upgrade() -> None:
    for name, type_ in COLUMNS.items():
        op.add_column("payments", sa.Column(name, type_))


def downgrade() -> None:
    # The version before does not know the status, and would never end these payments.
    if waiting := op.get_bind().execute(REQUIRING).scalar_one():
        raise RuntimeError(f"{waiting} payments are REQUIRES_ACTION. Wait until they have ended, or cancel them.")
    for name in reversed(COLUMNS):
        op.drop_column("payments", name)
