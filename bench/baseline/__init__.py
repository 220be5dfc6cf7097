"""The usual way of building this, to compare with: written fairly, as its documentation suggests, and not tuned."""
