"""Order checks: how often the order of a payment could not be checked, and until when a worker tries to.

Revision ID: 20261122_0002
Revises: 20261122_0001
"""

import sqlalchemy as sa
from alembic import op

revision = "20261122_0002"
down_revision = "20261122_0001"


def upgrade() -> None:
    # The default is for workers and APIs of the version before, which do not know the column.
    op.add_column("payments", sa.Column("order_checks", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("payments", sa.Column("order_check_until", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("payments", "order_check_until")
    op.drop_column("payments", "order_checks")
