"""Webhooks: which receivers get an event, the life of a delivery, its log, and which URLs may be used."""
