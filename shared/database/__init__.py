"""The database: the engine, the tables, the clock, group commit, leases and migrations.

It contains no rule about payments or webhooks: those are in the packages that use it.
"""
