"""The terminal that commands write to."""

import io
import sys
from collections.abc import Sequence

from rich.console import Console


def standard_output(*, width_max: int | None = None) -> Console:
    """Return a console as wide as the terminal, and at most `width_max` characters.

    Characters that its encoding lacks are replaced.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False)
    if width_max is not None:
        console.width = min(console.width, width_max)
    return console


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines whose cells stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
