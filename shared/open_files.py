"""The limit of open files of this process. Each connection is one, and so is each socket of the service itself."""

import resource
from contextlib import suppress

# As many as this limit is when a process may have any number.
UNLIMITED = 1_048_576
# OPEN_MAX of macOS, which refuses some larger limits although it has no hard one.
LIMIT_OF_MACOS = 10_240


def allow_open_files(wanted: int) -> int:
    """Raise the limit of this process to `wanted`, as far as the machine allows it, and return the limit.

    Child processes inherit it. It is never lowered.
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for files in (wanted, min(wanted, LIMIT_OF_MACOS)):
        enough = files if hard == resource.RLIM_INFINITY else min(files, hard)
        # A system may allow less than it says. If it allows neither, the limit stays.
        if open_files_max() < enough:
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
    return open_files_max()


def open_files_max() -> int:
    """Return how many files this process may have open."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft
