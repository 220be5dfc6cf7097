"""What a person sees while it measures."""

from time import monotonic

from rich.console import Console

console = Console(highlight=False)
_began = monotonic()


def say(text: str) -> None:
    """One line, with the minutes since the start."""
    minutes, seconds = divmod(int(monotonic() - _began), 60)
    console.print(f"{minutes:3d}:{seconds:02d}  {text} ...", style="dim")
