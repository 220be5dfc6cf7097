"""The table of the clock: one row, which every process reads once a second."""

from sqlalchemy import Column, Float, Integer, String, Table

from shared.database.columns import UtcDateTime
from shared.database.tables import metadata, required

# The id of the one row. Without it, service time is real time.
CLOCK_ID = 1

# See `shared.service_time.ServiceTime` for the columns that every process reads.
simulation_clock = Table(
    "simulation_clock",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    required("anchored_at", UtcDateTime),  # real time
    required("service_at", UtcDateTime),
    required("speed", Float),
    required("before_at", UtcDateTime),
    required("speed_before", Float),
    Column("advances_to", UtcDateTime),
    # The process that advances the clock, and until when it has that task, in real time.
    Column("advanced_by", String(36)),
    Column("advanced_until", UtcDateTime),
    # Moments that came in the latest advance, and payments, refunds and deliveries that ended by them.
    required("became_due", Integer),
    required("ended", Integer),
)
