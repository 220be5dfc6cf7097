"""The URL that each attempt to deliver went to: the URL of an endpoint may change between two attempts.

Revision ID: 20261127_0004
Revises: 20261124_0003
"""

import sqlalchemy as sa
from alembic import op

revision = "20261127_0004"
down_revision = "20261124_0003"


def upgrade() -> None:
    op.add_column("delivery_attempts", sa.Column("url", sa.String(length=2048), nullable=True))


def downgrade() -> None:
    op.drop_column("delivery_attempts", "url")
