"""Service time: the row of its clock, and until when a row of work is held in real time.

Revision ID: 20261128_0014
Revises: 20261128_0013
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "20261128_0014"
down_revision = "20261128_0013"

MOMENT = sa.DateTime(timezone=True)
HELD_TABLES = ("payments", "refunds", "deliveries")


def upgrade() -> None:
    moments: list[sa.Column[Any]] = [
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("anchored_at", MOMENT, nullable=False),
        sa.Column("service_at", MOMENT, nullable=False),
        sa.Column("speed", sa.Float(), nullable=False),
        sa.Column("before_at", MOMENT, nullable=False),
        sa.Column("speed_before", sa.Float(), nullable=False),
        sa.Column("advances_to", MOMENT),
        sa.Column("advanced_by", sa.String(36)),
        sa.Column("advanced_until", MOMENT),
        sa.Column("became_due", sa.Integer(), nullable=False),
        sa.Column("ended", sa.Integer(), nullable=False),
    ]
    op.create_table("simulation_clock", *moments, sa.PrimaryKeyConstraint("id", name="pk_simulation_clock"))
    for table in HELD_TABLES:
        op.add_column(table, sa.Column("held_until", MOMENT))


def downgrade() -> None:
    for table in reversed(HELD_TABLES):
        op.drop_column(table, "held_until")
    op.drop_table("simulation_clock")
