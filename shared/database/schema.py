"""The whole schema. Importing this module makes every table known to `metadata`."""

from shared.database.refund_tables import refunds

metadata = refunds.metadata
