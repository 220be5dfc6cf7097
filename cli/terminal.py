"""The terminal that commands write to."""

import io
import sys

from rich.console import Console


def standard_output(*, width_max: int) -> Console:
    """Return a console that is at most `width_max` characters wide. Characters that its encoding lacks are replaced."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False)
    console.width = min(console.width, width_max)
    return console
