"""Verification: compares every payment with the tables and the gateway's ledger. It must repair nothing."""
