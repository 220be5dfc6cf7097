"""A standard stream that never raises and never waits long: a log line that cannot be written is dropped and counted.

The lines go to the descriptor at once. A buffer of Python's would keep what failed, and fail again when the process
ends.
"""

import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import TextIO

from shared import metrics

# A pipe that is ready takes at least so many bytes without blocking (PIPE_BUF of Linux).
CHUNK_BYTES = 4096
# Milliseconds that a line waits for a reader that is behind. The event loop stands still for so long.
PATIENCE_MS = 100
# Seconds after a dropped line in which no line waits: a reader that has stopped costs 1 % of the time at most.
IMPATIENT_S = 10.0


class LogStream:
    """Writes lines to a file descriptor, or to `file` if that has none; without either it drops everything.

    The first line that cannot be written is reported with `notify`; all of them are counted in
    `payments_log_lines_lost_total`.
    """

    def __init__(
        self,
        descriptor: int | None,
        *,
        file: TextIO | None = None,
        notify: Callable[[str], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._descriptor = descriptor
        self._file = file
        self._notify = notify
        self._clock = clock
        # Libraries log from threads, and two of them must not poll at once.
        self._lock = threading.Lock()
        self._poll = select.poll()
        if descriptor is not None:
            self._poll.register(descriptor, select.POLLOUT)
        self._lost = 0
        self._impatient_until = 0.0
        # The last line was cut off in the middle.
        self._is_torn = False

    def write(self, data: bytes | str) -> int:
        """Write one or more whole lines, or drop them. Never raises."""
        line = data.encode(errors="backslashreplace") if isinstance(data, str) else data
        with self._lock:
            try:
                if self._descriptor is not None:
                    self._write_to(self._descriptor, line)
                elif self._file is not None:
                    self._file.write(line.decode())
                else:
                    self._drop("it is closed")
            except (OSError, ValueError) as error:
                self._drop(str(error))
        return len(data)

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def _write_to(self, descriptor: int, line: bytes) -> None:
        left = b"\n" + line if self._is_torn else line
        while left:
            is_impatient = self._impatient_until and self._clock() < self._impatient_until
            patience_ms = 0 if is_impatient else PATIENCE_MS
            if not self._poll.poll(patience_ms):
                raise BlockingIOError("its reader has stopped reading")
            left = left[os.write(descriptor, left[:CHUNK_BYTES]) :]
            self._is_torn = bool(left)

    def _drop(self, reason: str) -> None:
        self._impatient_until = self._clock() + IMPATIENT_S
        self._lost += 1
        metrics.log_lines_lost.inc()
        if self._lost == 1:
            self._notify(
                f"Log lines cannot be written to the standard output: {reason}. The service goes on without them; "
                "payments_log_lines_lost_total counts them."
            )


def stream_of(file: TextIO | None) -> LogStream:
    """Return the stream over a standard file of Python, which is None if the descriptor was closed at the start."""
    if file is None:
        return LogStream(None, notify=_notify_operator)
    try:
        return LogStream(file.fileno(), notify=_notify_operator)
    except OSError:
        # A file in memory has no descriptor.
        return LogStream(None, file=file, notify=_notify_operator)


def _notify_operator(sentence: str) -> None:
    """Write a sentence to the standard error, unless that cannot be written either."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = sys.stderr.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        if poll.poll(0):
            os.write(descriptor, f"{sentence}\n".encode())
