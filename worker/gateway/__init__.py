"""The simulated payment gateway: it behaves like a real one and moves no money."""
