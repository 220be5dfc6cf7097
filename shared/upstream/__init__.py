"""Clients of other services, with bounded connections, time and bodies, and a circuit breaker in front of each."""
