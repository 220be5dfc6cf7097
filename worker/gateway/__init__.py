"""The simulated payment gateway: behaves like the real thing, moves no money."""
