"""`payments simulate`: steer the simulation of a running service, through its API."""
