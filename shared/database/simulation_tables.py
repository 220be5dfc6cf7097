"""The tables of the rules that steer the simulation, and of their uses."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, String, Table, Uuid, text

from shared.database.columns import UtcDateTime
from shared.database.tables import NAME_CHARS_MAX, Json, metadata, required

CAN_FIRE = text("deleted_at IS NULL AND used_up_at IS NULL")

simulation_rules = Table(
    "simulation_rules",
    metadata,
    Column("id", Uuid, primary_key=True),
    required("name", String(NAME_CHARS_MAX)),
    required("match", Json),
    required("effect", Json),
    # How often the rule may fire; null = without a count.
    Column("times", Integer),
    required("used", Integer),
    required("created_by", String(80)),
    required("created_at", UtcDateTime),
    Column("expires_at", UtcDateTime),
    Column("used_up_at", UtcDateTime),
    # Rows of deleted rules stay for a day.
    Column("deleted_at", UtcDateTime),
    CheckConstraint("used >= 0 AND (times IS NULL OR used <= times)", name="used_within_times"),
    # The expired ones among them are removed after a day.
    Index("ix_simulation_rules_can_fire", "id", postgresql_where=CAN_FIRE, sqlite_where=CAN_FIRE),
)

# Each row is a call on which a rule with `times` has fired. There is no foreign key: a use is never younger than the
# end of its rule, so what removes the old ones leaves none without its rule, and needs no index to see that.
simulation_rule_uses = Table(
    "simulation_rule_uses",
    metadata,
    # The id of the payment or the refund.
    Column("target_id", Uuid, primary_key=True),
    Column("operation", String(16), primary_key=True),
    # That of a capture or a refund; 0 = the operation has none.
    Column("operation_number", Integer, primary_key=True, autoincrement=False),
    Column("call_number", Integer, primary_key=True, autoincrement=False),
    required("rule_id", Uuid),
    # What the rule did, so that a repeated call does the same.
    required("fired", Json),
    required("created_at", UtcDateTime),
    Index("ix_simulation_rule_uses_created", "created_at"),
)

# One row, with the number of changes of the rules so far: it tells each process when to read them again, and only one
# transaction at a time changes them. It comes with the first rule.
simulation_rule_changes = Table(
    "simulation_rule_changes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    required("version", BigInteger),
)
