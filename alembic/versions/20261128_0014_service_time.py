"""Service time: the row of its clock, and until when a row of work is held in real time.

Revision ID: 20261128_0014
Revises: 20261128_0013
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "20261128_0014"
down_revision = "20261128_0013"

MOMENT = sa.DateTime(timezone=True)
# The version before knows real time only, and would find moments that are still to come.
AHEAD = sa.text(
    "SELECT count(*) FROM simulation_clock WHERE speed <> 1 OR service_at <> anchored_at OR advances_to IS NOT NULL"
)
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
    if op.get_context().dialect.name == "postgresql":
        op.execute("LOCK TABLE simulation_clock IN ACCESS EXCLUSIVE MODE")
    if op.get_bind().execute(AHEAD).scalar_one():
        raise CommandError(
            "The schema cannot go back, because the version before knows real time only, and service time is ahead of "
            "it or has another speed. Begin with an empty database, or restore a backup."
        )
    for table in reversed(HELD_TABLES):
        op.drop_column(table, "held_until")
    op.drop_table("simulation_clock")
