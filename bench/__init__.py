"""Measures the service on this machine. Load goes to loopback only and is bounded in count and time."""
