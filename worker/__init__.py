"""The worker: claims payments and deliveries that are due, asks the outside, and records the answers.

It serves no client.
"""
