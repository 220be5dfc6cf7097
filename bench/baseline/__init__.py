"""The usual design, for comparison: written as the documentation of its libraries suggests, and not tuned."""
