"""Chaos: real processes under load while everything that can break is broken, judged by the clients' own journal."""
