"""`payments demo`: shows what the service does with real requests and webhooks, and checks it."""
