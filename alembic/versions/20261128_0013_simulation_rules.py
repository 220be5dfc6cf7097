"""Rules that steer the simulation, and their uses.

Revision ID: 20261128_0013
Revises: 20261128_0012
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "20261128_0013"
down_revision = "20261128_0012"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
CAN_FIRE = sa.text("deleted_at IS NULL AND used_up_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "simulation_rules",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("match", JSON, nullable=False),
        sa.Column("effect", JSON, nullable=False),
        sa.Column("times", sa.Integer()),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.String(80), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("used_up_at", sa.DateTime(timezone=True)),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("used >= 0 AND (times IS NULL OR used <= times)", name="used_within_times"),
        sa.PrimaryKeyConstraint("id", name="pk_simulation_rules"),
    )
    op.create_index(
        "ix_simulation_rules_can_fire",
        "simulation_rules",
        ["id"],
        postgresql_where=CAN_FIRE,
        sqlite_where=CAN_FIRE,
    )
    op.create_table(
        "simulation_rule_uses",
        sa.Column("target_id", sa.Uuid(), nullable=False),
        sa.Column("operation", sa.String(16), nullable=False),
        sa.Column("operation_number", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("call_number", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("rule_id", sa.Uuid(), nullable=False),
        sa.Column("fired", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint(
            "target_id", "operation", "operation_number", "call_number", name="pk_simulation_rule_uses"
        ),
    )
    op.create_index("ix_simulation_rule_uses_created", "simulation_rule_uses", ["created_at"])
    op.create_table(
        "simulation_rule_changes",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_simulation_rule_changes"),
    )


def downgrade() -> None:
    op.drop_table("simulation_rule_changes")
    op.drop_table("simulation_rule_uses")
    op.drop_table("simulation_rules")
