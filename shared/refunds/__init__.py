"""Refunds of payments: requested, claimed by workers, recorded, and found again."""
