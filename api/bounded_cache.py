"""A cache of bounded size. It never decides whether an entry is still valid: that is up to its owner."""

from collections import OrderedDict
from collections.abc import Hashable


class BoundedCache[K: Hashable, V](OrderedDict[K, V]):
    """At most `size` entries; the one that was remembered longest ago goes first. Reading is that of a dictionary."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def remember(self, key: K, value: V) -> None:
        """Set an entry and make it the newest; beyond the size, drop the oldest."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._size:
            self.popitem(last=False)
