"""The operator's commands: `payments up | api | worker | migrate | token | health | demo | load | verify | version`."""
