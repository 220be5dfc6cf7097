"""The operator's commands: `payments up | api | worker | migrate | token | demo`."""
