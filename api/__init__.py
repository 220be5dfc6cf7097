"""The HTTP API: accepts payment intents and answers queries. It never calls the gateway or processes a payment."""
