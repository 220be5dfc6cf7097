"""Benchmarks of the service on this machine. The load goes to loopback only and is bounded in count and time."""
