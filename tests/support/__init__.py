"""Helpers of the tests: real servers and processes, clients, receivers, stand-ins of the platform. It has no test."""
