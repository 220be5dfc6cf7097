"""The whole schema. Importing this module makes every table known to `metadata`."""

from shared.database.api_key_tables import api_keys
from shared.database.clock_tables import simulation_clock
from shared.database.refund_tables import refunds
from shared.database.simulation_tables import simulation_rules

# The modules are imported for the tables that they define.
TABLES = (api_keys, refunds, simulation_clock, simulation_rules)
metadata = refunds.metadata
