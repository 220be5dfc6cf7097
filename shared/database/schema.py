"""The whole schema. Importing this module makes every table known to `metadata`."""

from shared.database.api_key_tables import api_keys
from shared.database.clock_tables import simulation_clock
from shared.database.refund_tables import refunds

# The modules are imported for the tables that they define.
TABLES = (api_keys, refunds, simulation_clock)
metadata = refunds.metadata
