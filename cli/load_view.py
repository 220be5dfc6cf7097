"""How a load looks while it runs: on a terminal one moving picture, in a pipe a plain line per second.

It decides nothing and asks nobody: all it shows is in the progress of the run.
"""

import asyncio
import contextlib
import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from cli.load_frame import WIDTH_MAX, Look, frame
from cli.load_progress import Progress, Sample

FRAMES_PER_S = 4


class View:
    """Shows runs, one after the other."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or _standard_output()
        self.last_frame: RenderableType | None = None  # of the last moment at which payments arrived

    def say(self, words: str, style: str = "") -> None:
        """A line."""
        self.console.print(Text(words, style), soft_wrap=True)

    @asynccontextmanager
    async def following(self, progress: Progress) -> AsyncIterator[None]:
        """Show the run until the block ends."""
        show = self._move(progress) if self.console.is_interactive else self._tell(progress)
        task = asyncio.get_running_loop().create_task(show)
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _move(self, progress: Progress) -> None:
        with Live(console=self.console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
            while True:
                size = self.console.size
                look = Look(min(size.width, WIDTH_MAX), size.height, self.console.options.ascii_only)
                picture = frame(progress, look)
                if progress.phase == "sending" and progress.samples:
                    self.last_frame = picture
                live.update(Group(picture, Text()), refresh=True)  # a line of its own for the terminal's ^C
                await asyncio.sleep(1 / FRAMES_PER_S)

    async def _tell(self, progress: Progress) -> None:
        told = 0
        while True:
            if progress.phase == "sending" and len(progress.samples) > told:
                self.last_frame = frame(progress, Look())
            for sample in progress.samples[told:]:
                self.console.print(plain_line(sample, progress.title), soft_wrap=True, markup=False)
            told = len(progress.samples)
            await asyncio.sleep(1 / FRAMES_PER_S)


def plain_line(sample: Sample, title: str) -> str:
    """One second in one line without control characters."""
    parts = [f"{sample.at_s:>4} s", f"offered {sample.second.offered}/s", f"accepted {sample.second.accepted}/s"]
    if title:
        parts.insert(1, title)
    if sample.second.refused or sample.second.not_sent:
        parts.append(f"refused {sample.second.refused}/s, not sent {sample.second.not_sent}/s")
    if (figures := sample.figures) is not None:
        parts += [
            f"settled {_number(figures.settled_per_s)}/s",
            f"queue {figures.queue_depth}",
            f"processing {figures.in_flight}",
            f"webhooks waiting {figures.webhook_backlog}",
            f"workers {'?' if figures.workers is None else len(figures.workers)}",
        ]
    if (spread := sample.latency) is not None:
        parts.append(f"202 after {spread.p50:.0f}/{spread.p95:.0f}/{spread.p99:.0f} ms (p50/p95/p99)")
    return "  ".join(parts)


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}"


def _standard_output() -> Console:
    """At most WIDTH_MAX wide; what its encoding cannot say is replaced, not an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH_MAX)
    return console
