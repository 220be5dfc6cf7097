"""The door: accepts intents, answers questions. It never calls the gateway and never runs a payment."""
