"""Lines on the terminal while the benchmark runs."""

from time import monotonic

from rich.console import Console

console = Console(highlight=False)
_began = monotonic()


def print_step(text: str) -> None:
    """Print one line with the time since the start."""
    minutes, seconds = divmod(int(monotonic() - _began), 60)
    console.print(f"{minutes:3d}:{seconds:02d}  {text} ...", style="dim")
