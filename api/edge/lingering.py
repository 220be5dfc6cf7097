"""A transport that closes a connection without losing the last response."""

import asyncio

# Seconds in which a client may read the last response while it is still sending.
LINGER_S = 2.0


class LingeringTransport(asyncio.Transport):
    """Writes to a transport, and closes it in two steps (RFC 9112, 9.6).

    A connection that is closed while bytes arrive is reset, and a reset may destroy a response that the client has not
    read. So `close` ends only the sending direction. The protocol drops what still arrives, until the client closes
    the connection or LINGER_S seconds are over.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See asyncio.WriteTransport."""
        self._transport.write(data)

    def is_closing(self) -> bool:
        """See asyncio.BaseTransport."""
        return self._is_closing or self._transport.is_closing()

    def close(self) -> None:
        """End the sending direction now, and the connection a little later."""
        if self.is_closing():
            return
        self._is_closing = True
        try:
            self._transport.write_eof()
        except OSError:
            # The client has reset the connection, which the event loop has not reported yet.
            self._transport.abort()
        else:
            self._loop.call_later(LINGER_S, self._transport.close)
