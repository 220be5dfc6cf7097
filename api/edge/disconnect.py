"""Tells a request in progress that its client has gone."""

from collections.abc import Callable, Mapping
from typing import Any

# The member of the ASGI scope.
DISCONNECT = "payments.disconnect"


class Disconnect:
    """Happens at most once: when the client closes its connection while its request is in progress."""

    __slots__ = ("_calls", "_has_happened")

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []
        self._has_happened = False

    def on(self, call: Callable[[], None]) -> None:
        """Call this when it happens, and now if it has happened already."""
        if self._has_happened:
            call()
        else:
            self._calls.append(call)

    def happen(self) -> None:
        """Call what waits for it."""
        self._has_happened = True
        for call in self._calls:
            call()


def disconnect_of(scope: Mapping[str, Any]) -> Disconnect:
    """Return what the protocol put into the scope; one that never happens if another server runs the application."""
    found: Disconnect | None = scope.get(DISCONNECT)
    return found or Disconnect()
