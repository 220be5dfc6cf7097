"""`payments verify`: checks every payment against the tables and the gateway's ledger, and reports what disagrees."""
