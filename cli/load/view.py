"""The live output of a load: one moving picture on a terminal, one plain line per second in a pipe.

It must only show the progress of the run, and decide and request nothing.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from cli.load.frame import Look, frame
from cli.load.progress import Progress, Sample
from cli.terminal import standard_output

FRAMES_PER_S = 4


class View:
    """Shows the progress of runs, one run after the other."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or standard_output()
        # The last picture that was drawn while payments arrived.
        self.last_frame: RenderableType | None = None

    def print_line(self, text: str, style: str = "") -> None:
        """Print a line without wrapping it."""
        self.console.print(Text(text, style), soft_wrap=True)

    @asynccontextmanager
    async def following(self, progress: Progress) -> AsyncIterator[None]:
        """Show the run until the block ends."""
        show = self._show_live(progress) if self.console.is_interactive else self._print_lines(progress)
        task = asyncio.get_running_loop().create_task(show)
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _show_live(self, progress: Progress) -> None:
        with Live(console=self.console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
            while True:
                size = self.console.size
                terminal = Look(size.width, size.height, self.console.options.ascii_only)
                picture = frame(progress, terminal)
                if progress.phase == "sending" and progress.samples:
                    self.last_frame = frame(progress, Look())
                # The empty line is for the ^C that a terminal prints.
                live.update(Group(picture, Text()), refresh=True)
                await asyncio.sleep(1 / FRAMES_PER_S)

    async def _print_lines(self, progress: Progress) -> None:
        printed = 0
        while True:
            if progress.phase == "sending" and len(progress.samples) > printed:
                self.last_frame = frame(progress, Look())
            for sample in progress.samples[printed:]:
                self.console.print(plain_line(sample, progress.title), soft_wrap=True, markup=False)
            printed = len(progress.samples)
            await asyncio.sleep(1 / FRAMES_PER_S)


def plain_line(sample: Sample, title: str) -> str:
    """Return one second of a run as one line without control characters."""
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
