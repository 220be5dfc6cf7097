"""Steered calls to the gateway: what requests want of them, how many there were, and what was steered.

Revision ID: 20261128_0012
Revises: 20261128_0011
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError
from sqlalchemy.dialects.postgresql import JSONB

revision = "20261128_0012"
down_revision = "20261128_0011"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
COLUMNS: dict[str, dict[str, Any]] = {
    "payments": {"steering": JSON, "earlier_calls": sa.Integer, "simulated": JSON},
    "refunds": {"steering": JSON, "simulated": JSON},
}
# The version before would make these calls as if nobody steered them, or takes no such value.
STEERED = (
    ("payments", "status IN ('PENDING', 'PROCESSING', 'REQUIRES_ACTION') AND steering IS NOT NULL"),
    ("refunds", "status IN ('PENDING', 'PROCESSING') AND steering IS NOT NULL"),
    ("payments", "length(outcome_rule) > 16"),
)


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        for name, type_ in columns.items():
            op.add_column(table, sa.Column(name, type_))
    _set_length(64, before=16)


def downgrade() -> None:
    _require_unsteered_rows()
    _set_length(16, before=64)
    for table, columns in COLUMNS.items():
        for name in reversed(columns):
            op.drop_column(table, name)


def _set_length(chars_max: int, *, before: int) -> None:
    # SQLite keeps texts of any length in a column. On PostgreSQL a longer one needs no rewrite of the table.
    if op.get_context().dialect.name == "postgresql":
        op.alter_column("payments", "outcome_rule", type_=sa.String(chars_max), existing_type=sa.String(before))


def _require_unsteered_rows() -> None:
    """Raise CommandError unless the version before can end every payment and refund."""
    if op.get_context().dialect.name == "postgresql":
        # From here on no such row can come.
        op.execute("LOCK TABLE payments, refunds IN ACCESS EXCLUSIVE MODE")
    found = sum(op.get_bind().execute(sa.text(f"SELECT count(*) FROM {table} WHERE {which}")).scalar_one()  # noqa: S608
                for table, which in STEERED)  # fmt: skip
    if found:
        raise CommandError(
            f"The schema cannot go back, because the version before does not know what it would find: {found} payments "
            "or refunds that are steered and have not ended, or that a rule has decided. Wait until they have ended; "
            "what a rule has decided stays."
        )
