"""The output of the demo: with colours and moving bars on a terminal, as plain lines in a pipe.

A pipe must get no control characters. Nothing is decided here: the scenarios check what is shown.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cli.demo.results import Checks, Spread, Summary
from cli.screenshot import screenshot
from cli.terminal import standard_output

WIDTH_MAX = 100
INDENT = " " * 10
BROKEN_SHOWN_MAX = 20
# Lines that a pipe gets instead of a moving bar.
PLAIN_STEPS = 4
STYLES = {
    "PENDING": "cyan",
    "PROCESSING": "yellow",
    "REQUIRES_ACTION": "bold cyan",
    "AUTHORIZED": "bold cyan",
    "COMPLETED": "bold green",
    "PARTIALLY_REFUNDED": "bold magenta",
    "REFUNDED": "bold magenta",
    "FAILED": "bold red",
    "verified": "green",
}
SHORT_METHODS = {"CREDIT_CARD": "credit", "DEBIT_CARD": "debit", "PAYPAL": "PayPal"}


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened to a payment.

    `actor` is the process that did it: client, api, worker or receiver.
    """

    at: datetime
    actor: str
    event: str
    status: str = ""
    note: str = ""


class Bars(Protocol):
    """Counters that are shown while they grow."""

    def advance(self, name: str) -> None:
        """Add one to the counter `name`."""


class View:
    """Everything that the demo prints."""

    def __init__(self, console: Console | None = None, *, is_recorded: bool = False) -> None:
        """`is_recorded` keeps what is printed for `picture`, with plain lines instead of moving bars."""
        self._console = console or standard_output(width_max=WIDTH_MAX)
        self._titles: list[str] = []
        if is_recorded:
            self._console.record = True
            self._console.is_interactive = False
        self._rule = "-" if self._console.options.ascii_only else "─"

    def opening(self, version: str) -> None:
        """Print what the demo is."""
        self._console.print(f"\n[bold]Payment service {version}: a demonstration[/bold]")
        self._explain("No money moves and no data is kept. Starting the service in a temporary folder ...")

    def participants(self, *, service: str, receiver: str) -> None:
        """Print the URLs of the service and of the receiver."""
        for name, url, description in (
            ("service", service, "API and worker, SQLite, its own Valkey"),
            ("receiver", receiver, "verifies webhooks with `standardwebhooks`"),
        ):
            self._line((f"  {name:<10}", "dim"), (f"{url:<24}", "bold"), (description, "dim"))

    def scenario(self, title: str, explanation: str) -> None:
        """Print the heading of a scenario and what to look at."""
        self._titles.append(title)
        self._console.print()
        self._console.rule(f"[bold]{title}", characters=self._rule, align="left", style="dim")
        self._explain(explanation)

    @contextmanager
    def waiting(self, description: str) -> Iterator[None]:
        """Show a spinner on a terminal, and nothing in a pipe, until the block ends."""
        if not self._console.is_interactive:
            yield
            return
        with self._console.status(description):
            yield

    def journey(self, title: str, facts: Sequence[str], began: datetime, moments: Sequence[Moment]) -> None:
        """Print what happened to one payment in the order of time, in ms since `began`, and then the `facts`."""
        self._console.print()
        self._line((title, "bold"))
        for moment in sorted(moments, key=lambda moment: moment.at):
            passed_ms = (moment.at - began).total_seconds() * 1000
            status = (f"{moment.status:<10}  ", STYLES.get(moment.status, "")) if moment.status else ("", "")
            passed = (f"{passed_ms:>6.0f} ms  ", "dim")
            self._line(passed, (f"{moment.actor:<8}  ", "dim"), f"{moment.event:<26}  ", status, (moment.note, "dim"))
        for fact in facts:
            self._line((f"{INDENT}{fact}", "dim"))

    @contextmanager
    def bars(self, total: int, names: Sequence[str]) -> Iterator[Bars]:
        """Show a bar for each name. A pipe gets a line each time that a quarter of the last counter is reached."""
        self._console.print()
        if not self._console.is_interactive:
            yield _PlainBars(self._console, total, names)
            return
        columns = (TextColumn("  {task.description:<18}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as progress:
            yield _MovingBars(progress, total, names)

    def summary(self, summary: Summary) -> None:
        """Print a summary of many payments."""
        self._console.print()
        self._console.print(_outcome_table(summary))
        self._console.print(_time_table(summary))
        self._line(f"Webhooks received and verified: {summary.webhooks} of {summary.payments}.")

    def picture(self) -> str:
        """Return the last two scenarios and the end as SVG: about what a terminal shows when the demo has ended."""
        lines = self._console.export_text(styles=True).splitlines()
        title = self._titles[-2] if len(self._titles) > 1 else ""
        first = max((number for number, line in enumerate(lines) if title in line), default=0)
        picture = Text.from_ansi("\n".join(lines[first:]))
        return screenshot(picture, width=self._console.width, title="payments demo")

    def written(self, path: Path) -> None:
        """Print the name of a file that was written."""
        self._line((f"Written: {path}", "dim"))

    def stopping(self) -> None:
        """Print that the demo was interrupted. The service still waits for the gateway, which takes a few seconds."""
        self._console.print("\nInterrupted. Stopping the service ...")

    def interrupted(self) -> None:
        """Print that everything is stopped."""
        self._console.print("Everything is stopped.")

    def cannot_start(self, reason: str) -> None:
        """Print why the demo cannot start."""
        self._line((reason, "red"))

    def verdict(self, checks: Checks, *, took_s: float, log: Sequence[str]) -> None:
        """Print whether all checks held. If not, print those that did not, and the end of the service's log."""
        self._console.print()
        self._console.rule(characters=self._rule, style="dim")
        if checks.exit_code == 0:
            self._line(("Everything happened as expected:", "bold green"), f" {checks.held} checks in {took_s:.0f} s.")
            self._line("The service is stopped and its data is gone. To keep one running: ", ("make run", "bold"))
            return
        self._broken(checks)
        self._line()
        self._line(("The last lines of the service's log:", "bold"))
        for line in log or ["(none)"]:
            self._line((line, "dim"))

    def _broken(self, checks: Checks) -> None:
        count = len(checks.broken)
        self._line((f"Not as expected: {count} of {checks.held + count} checks", "bold red"))
        for broken in checks.broken[:BROKEN_SHOWN_MAX]:
            self._line((f"  {broken.expectation}: {broken.reason}", "red"))
        if count > BROKEN_SHOWN_MAX:
            self._line((f"  and {count - BROKEN_SHOWN_MAX} more", "red"))

    def _explain(self, text: str) -> None:
        for line in textwrap.wrap(text, self._console.width):
            self._line((line, "dim"))

    def _line(self, *parts: str | tuple[str, str]) -> None:
        """Print one line without wrapping it, and without spaces at its end."""
        text = Text.assemble(*parts)
        text.rstrip()
        self._console.print(text, soft_wrap=True)


class _MovingBars:
    def __init__(self, progress: Progress, total: int, names: Sequence[str]) -> None:
        self._progress = progress
        self._tasks = {name: progress.add_task(name, total=total) for name in names}

    def advance(self, name: str) -> None:
        self._progress.advance(self._tasks[name])


class _PlainBars:
    def __init__(self, console: Console, total: int, names: Sequence[str]) -> None:
        self._console = console
        self._total = total
        self._counts = dict.fromkeys(names, 0)
        self._printed_by = names[-1]

    def advance(self, name: str) -> None:
        self._counts[name] += 1
        if name == self._printed_by and self._counts[name] % max(1, self._total // PLAIN_STEPS) == 0:
            counts = ", ".join(f"{count} {word}" for word, count in self._counts.items())
            self._console.print(f"  of {self._total}: {counts}")


def _outcome_table(summary: Summary) -> Table:
    table = Table(box=box.ROUNDED, border_style="dim", header_style="dim")
    table.add_column("outcome")
    # The longest code that the demo can show has 24 characters.
    table.add_column("failure_code", min_width=24)
    methods = [method for method in SHORT_METHODS if any(method in outcome.by_method for outcome in summary.outcomes)]
    for heading in ("payments", *(SHORT_METHODS[method] for method in methods)):
        table.add_column(heading, justify="right")
    for outcome in summary.outcomes:
        table.add_row(
            Text(outcome.status, STYLES.get(outcome.status, "")),
            outcome.failure_code or "",
            Text(str(outcome.count), "bold"),
            *(str(outcome.by_method.get(method) or "") for method in methods),
        )
    return table


def _time_table(summary: Summary) -> Table:
    table = Table(box=box.ROUNDED, border_style="dim", header_style="dim")
    table.add_column("time in ms", min_width=37)
    for heading in ("p50", "p99", "longest"):
        table.add_column(heading, justify="right", min_width=8)
    for description, spread in (
        (f"from request to 202, {summary.payments} at once", summary.accept),
        ("  the part that the service took", summary.accept_inside),
        ("from acceptance to the final status", summary.settle),
        ("from the final status to the webhook", summary.webhook),
    ):
        table.add_row(description, *_figures(spread))
    return table


def _figures(spread: Spread | None) -> tuple[str, ...]:
    if spread is None:
        return ("-", "-", "-")
    return tuple(f"{value:,.0f}" for value in (spread.p50, spread.p99, spread.longest))
