"""Processing payments: the slots, the claims, the charge of each payment and its record."""
