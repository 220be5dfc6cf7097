"""What steers the outcome of a payment on purpose. It is for tests of clients, and SIMULATION turns it off."""
