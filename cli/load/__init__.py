"""`payments load`: sends a service many payments, shows what it does with them, and checks the result."""
