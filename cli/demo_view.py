"""How the demo looks: on a terminal with colours and moving bars, in a pipe as plain lines without control characters.

It decides nothing: what is shown was found out and judged elsewhere.
"""

import io
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cli.demo_results import Checks, Spread, Summary

WIDTH_MAX = 100
INDENT = " " * 10
BROKEN_SHOWN_MAX = 20
PLAIN_STEPS = 4  # lines in a pipe instead of a moving bar
STYLES = {
    "PENDING": "cyan",
    "PROCESSING": "yellow",
    "COMPLETED": "bold green",
    "FAILED": "bold red",
    "verified": "green",
}
SHORT_METHODS = {"CREDIT_CARD": "credit", "DEBIT_CARD": "debit", "PAYPAL": "PayPal"}


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened to a payment."""

    at: datetime
    who: str
    what: str
    status: str = ""
    note: str = ""


class Bars(Protocol):
    """Counts what has been done."""

    def advance(self, name: str) -> None:
        """One more."""


class View:
    """Everything that the demo says."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or _standard_output()
        self._rule = "-" if self._console.options.ascii_only else "─"

    def opening(self, version: str) -> None:
        """What this is."""
        self._console.print(f"\n[bold]Payment service {version}: a demonstration[/bold]")
        self._explain("No money moves, and nothing of this is kept. Starting the service in a temporary folder ...")

    def stage(self, *, service: str, receiver: str) -> None:
        """Who takes part."""
        for name, url, words in (
            ("service", service, "API and worker, SQLite, a Valkey of its own"),
            ("receiver", receiver, "verifies webhooks with `standardwebhooks`"),
        ):
            self._line((f"  {name:<10}", "dim"), (f"{url:<24}", "bold"), (words, "dim"))

    def scene(self, title: str, explanation: str) -> None:
        """What comes next, and what to look at."""
        self._console.print()
        self._console.rule(f"[bold]{title}", characters=self._rule, align="left", style="dim")
        self._explain(explanation)

    @contextmanager
    def waiting(self, words: str) -> Iterator[None]:
        """A spinner on a terminal; nothing in a pipe."""
        if not self._console.is_interactive:
            yield
            return
        with self._console.status(words):
            yield

    def journey(self, title: str, facts: Sequence[str], began: datetime, moments: Sequence[Moment]) -> None:
        """One payment's moments in the order of time, in ms since `began`, and what is worth knowing in the end."""
        self._console.print()
        self._line((title, "bold"))
        for moment in sorted(moments, key=lambda moment: moment.at):
            passed_ms = (moment.at - began).total_seconds() * 1000
            status = (f"{moment.status:<10}  ", STYLES.get(moment.status, "")) if moment.status else ("", "")
            passed = (f"{passed_ms:>6.0f} ms  ", "dim")
            self._line(passed, (f"{moment.who:<8}  ", "dim"), f"{moment.what:<26}  ", status, (moment.note, "dim"))
        for fact in facts:
            self._line((f"{INDENT}{fact}", "dim"))

    @contextmanager
    def bars(self, total: int, names: Sequence[str]) -> Iterator[Bars]:
        """A bar for each name; in a pipe a line now and then about the last of them."""
        self._console.print()
        if not self._console.is_interactive:
            yield _PlainBars(self._console, total, names)
            return
        columns = (TextColumn("  {task.description:<18}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as progress:
            yield _MovingBars(progress, total, names)

    def summary(self, summary: Summary) -> None:
        """Many payments on one page."""
        self._console.print()
        self._console.print(_outcome_table(summary))
        self._console.print(_time_table(summary))
        self._line(f"Webhooks received and verified: {summary.webhooks} of {summary.payments}.")

    def stopping(self) -> None:
        """Somebody interrupts; the service lets the gateway answer first, which takes its time."""
        self._console.print("\nInterrupted. Stopping the service ...")

    def interrupted(self) -> None:
        """Nothing is left."""
        self._console.print("Everything is stopped.")

    def refused(self, reason: str) -> None:
        """The demo cannot even start."""
        self._line((reason, "red"))

    def verdict(self, checks: Checks, *, took_s: float, log: Sequence[str]) -> None:
        """Whether everything expected happened; if not, what did not and what the service said last."""
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
        """One line, as long as it is and without spaces at its end."""
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
        self._told_by = names[-1]

    def advance(self, name: str) -> None:
        self._counts[name] += 1
        if name == self._told_by and self._counts[name] % max(1, self._total // PLAIN_STEPS) == 0:
            counts = ", ".join(f"{count} {word}" for word, count in self._counts.items())
            self._console.print(f"  of {self._total}: {counts}")


def _standard_output() -> Console:
    """At most WIDTH_MAX wide; what its encoding cannot say is replaced, not an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH_MAX)
    return console


def _outcome_table(summary: Summary) -> Table:
    table = Table(box=box.ROUNDED, border_style="dim", header_style="dim")
    table.add_column("outcome")
    table.add_column("failure_code", min_width=24)  # the longest code there is
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
    for words, spread in (
        (f"from request to 202, {summary.payments} at once", summary.accept),
        ("  the service's part of that", summary.accept_inside),
        ("from acceptance to the final status", summary.settle),
        ("from there to the webhook, verified", summary.webhook),
    ):
        table.add_row(words, *_figures(spread))
    return table


def _figures(spread: Spread | None) -> tuple[str, ...]:
    if spread is None:
        return ("-", "-", "-")
    return tuple(f"{value:,.0f}" for value in (spread.p50, spread.p99, spread.longest))
