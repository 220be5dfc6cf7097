"""Processing refunds: the claims, the gateway's answers and their record."""
