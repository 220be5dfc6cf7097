"""Sending deliveries: the pool, the queues by host, the claims, one attempt, its record, and the SSRF guard."""
