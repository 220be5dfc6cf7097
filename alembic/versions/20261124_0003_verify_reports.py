"""Verify reports: the results of `payments verify`.

Revision ID: 20261124_0003
Revises: 20261122_0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261124_0003"
down_revision = "20261122_0002"


def upgrade() -> None:
    op.create_table(
        "verify_reports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("report", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_verify_reports"),
    )


def downgrade() -> None:
    op.drop_table("verify_reports")
