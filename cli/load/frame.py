"""Draws one picture of a load from its progress: rates, latencies, backlogs, outcomes and a bar for each worker."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.load.client import WorkerFigures
from cli.load.progress import Progress
from shared.lifecycle import PaymentStatus

# The width of a picture that is written to a file; a terminal shows as many characters as it has.
PICTURE_WIDTH = 104
# The share of the width that the left panels take.
LEFT_SHARE = 0.58
OUTCOMES_SHOWN = 6
NAME_WIDTH, VALUE_WIDTH = 12, 6
# The columns of a worker.
NAME_WIDTH_MAX, RATE_WIDTH = 24, 9
# Workers in one column. With more workers there are two columns.
ONE_COLUMN_MAX = 4
LINES_WITHOUT_WORKERS = 21
# Seconds for which a worker that has left is still shown.
GONE_SHOWN_S = 3
# The full block is left out: it would touch the line above.
LEVELS, ASCII_LEVELS = "▁▂▃▄▅▆▇", "_.:-=+#"
OFFERED, ACCEPTED, SETTLED, ERROR = "cyan", "bright_blue", "green", "red"
STATUS_STYLES = {PaymentStatus.COMPLETED: "green", PaymentStatus.FAILED: "red", PaymentStatus.CANCELLED: "yellow"}


@dataclass(frozen=True, slots=True)
class Look:
    """The size of the terminal, in characters, and whether it can show ASCII only."""

    width: int = PICTURE_WIDTH
    height: int = 40
    ascii_only: bool = False

    @property
    def left(self) -> int:
        """The width of the left panels."""
        return int(self.width * LEFT_SHARE)

    @property
    def spark(self) -> int:
        """The number of seconds for which a sparkline has room."""
        # The edges of the panel and the gaps take 7 characters.
        return max(1, self.left - NAME_WIDTH - VALUE_WIDTH - 7)


def frame(progress: Progress, terminal: Look) -> RenderableType:
    """Return the picture of the run as it is now."""
    columns = Table.grid(expand=True)
    columns.add_column(width=terminal.left)
    columns.add_column(ratio=1)
    columns.add_row(_rates(progress, terminal), _waiting(progress))
    columns.add_row(_latencies(progress, terminal), _outcomes(progress))
    whole = Table.grid(expand=False)
    whole.add_column(width=terminal.width)
    for part in (_header(progress), columns, _workers(progress, terminal)):
        whole.add_row(part)
    return whole


def _header(progress: Progress) -> RenderableType:
    plan = progress.plan
    title = Text.assemble(("payments load", "bold"), "  ", plan.description)
    if progress.title:
        title.append(f" · {progress.title}", "bold")
    done_s = min(progress.elapsed_s, plan.duration_s)
    match progress.phase:
        case "sending":
            moment = f"{done_s:.0f} of {plan.duration_s:g} s"
        case "draining":
            moment = f"waiting for {len(progress.payment_tally.open):,} payments to end"
        case other:
            moment = other
    first = Table.grid(expand=True)
    first.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    first.add_column(no_wrap=True, justify="right")
    first.add_row(title, Text(moment, "bold"))
    second = Text(f"{progress.target.url} · {progress.target.words}", "dim", no_wrap=True, overflow="ellipsis")
    if progress.error:
        second = Text(progress.error, ERROR, no_wrap=True, overflow="ellipsis")
    style = OFFERED if progress.phase == "sending" else SETTLED
    bar = ProgressBar(total=plan.duration_s, completed=done_s, complete_style=style, finished_style=style)
    return Group(first, second, bar)


def _rates(progress: Progress, terminal: Look) -> Panel:
    samples = progress.samples
    offered = [float(sample.second.offered) for sample in samples]
    accepted = [float(sample.second.accepted) for sample in samples]
    # The service counts these; without its figures they are unknown, which is not 0.
    settled = [sample.figures.settled_per_s if sample.figures else None for sample in samples]
    others = [float(sample.second.refused + sample.second.not_sent) for sample in samples]
    top = max([*offered, *accepted, *(value for value in settled if value is not None), 1.0])
    table = _lines()
    rows: tuple[tuple[str, Sequence[float | None], str], ...] = (
        ("offered", offered, OFFERED),
        ("accepted", accepted, ACCEPTED),
        ("settled", settled, SETTLED),
        ("not accepted", others, ERROR),
    )
    for name, values, style in rows:
        is_quiet = values is others and not any(others)
        current = _rate(values[-1]) if values else "-"
        table.add_row(
            Text(name, "dim" if is_quiet else ""),
            Text(current, "dim" if is_quiet else f"bold {style}"),
            Text(_spark(values, top, terminal), style),
        )
    return _panel("per second", table)


def _latencies(progress: Progress, terminal: Look) -> Panel:
    spreads = [sample.latency for sample in progress.samples]
    top = max([spread.p99 for spread in spreads if spread] or [1.0])
    table = _lines()
    for name, style in (("p50", "green"), ("p95", "yellow"), ("p99", "red")):
        values = [float(getattr(spread, name)) if spread else 0.0 for spread in spreads]
        current = next((f"{getattr(spread, name):,.0f}" for spread in reversed(spreads) if spread), "-")
        table.add_row(name, Text(current, f"bold {style}"), Text(_spark(values, top, terminal), style))
    request_counts = progress.request_counts
    totals = Text.assemble(
        (f"{request_counts.offered:,}", OFFERED), (" offered, ", "dim"),
        (f"{request_counts.accepted:,}", ACCEPTED), (" accepted, ", "dim"),
        (f"{progress.payment_tally.settled:,}", SETTLED), (" ended", "dim"),
        no_wrap=True,
    )  # fmt: skip
    extra = {
        "refused": request_counts.refused.total(),
        "not sent": request_counts.not_sent.total(),
        "unanswered": request_counts.unanswered,
        "repeated": request_counts.repeated,
    }
    found = ", ".join(f"{count:,} {name}" for name, count in extra.items() if count)
    errors = Text(found or "no errors", ERROR if found else "dim", no_wrap=True)
    return _panel("from arrival to the 202, ms", Group(table, Text(), totals, errors))


def _waiting(progress: Progress) -> Panel:
    figures = progress.figures
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(ratio=1)
    table.add_column(justify="right")
    if figures is None:
        table.add_row(Text("No live figures: they need", "dim"), "")
        table.add_row(Text("the token of an admin.", "dim"), "")
        for _ in range(2):
            table.add_row()
        return _panel("right now", table)
    received_count = "" if progress.webhooks is None else f" ({progress.webhooks:,} received)"
    for name, value, is_high in (
        ("queue depth", f"{figures.queue_depth:,}", figures.queue_depth > progress.plan.rate),
        ("processing", f"{figures.in_flight:,}", False),
        (
            f"webhook backlog{received_count}",
            f"{figures.webhook_backlog:,}",
            figures.webhook_backlog > progress.plan.rate,
        ),
        ("oldest waits", f"{figures.oldest_pending_s:,.1f} s", figures.oldest_pending_s > 1),
    ):
        table.add_row(Text(name, "dim", no_wrap=True), Text(value, "bold yellow" if is_high else "bold"))
    return _panel("right now", table)


def _outcomes(progress: Progress) -> Panel:
    ends = progress.payment_tally.ends.most_common()
    total = max(1, progress.payment_tally.settled)
    shown = ends[:OUTCOMES_SHOWN] if len(ends) <= OUTCOMES_SHOWN else ends[: OUTCOMES_SHOWN - 1]
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(ratio=1, no_wrap=True)
    table.add_column(justify="right")
    table.add_column(justify="right", width=6)
    for (status, code), count in shown:
        name = code or status.value
        table.add_row(Text(name, STATUS_STYLES.get(status, "")), f"{count:,}", Text(f"{count / total:.1%}", "dim"))
    if others_count := sum(count for _, count in ends[len(shown) :]):
        table.add_row(
            Text(f"{len(ends) - len(shown)} others", "dim"),
            f"{others_count:,}",
            Text(f"{others_count / total:.1%}", "dim"),
        )
    for _ in range(OUTCOMES_SHOWN - table.row_count):
        table.add_row()
    return _panel("outcomes", table)


def _workers(progress: Progress, terminal: Look) -> Panel:
    figures = progress.figures
    workers = figures.workers if figures is not None else None
    if not workers:
        words = "No worker is alive." if workers is not None else "unknown"
        return _panel("workers", Text(words, "dim" if workers is None else ERROR))
    alive = [(worker, False) for worker in workers]
    names = {worker.name for worker in workers}
    all_workers = sorted(
        [*alive, *((worker, True) for worker in _left_lately(progress, names))], key=lambda w: w[0].name
    )
    side_by_side = 2 if len(all_workers) > ONE_COLUMN_MAX else 1
    rows_max = max(1, terminal.height - LINES_WITHOUT_WORKERS)
    shown = all_workers[: rows_max * side_by_side]
    width = (terminal.width - 4 - 2 * (side_by_side - 1)) // side_by_side
    table = Table.grid(padding=(0, 1))
    for _ in range(side_by_side):
        table.add_column(width=width)
    cells = [_worker(worker, terminal, width, is_gone=is_gone) for worker, is_gone in shown]
    for begin in range(0, len(cells), side_by_side):
        table.add_row(*cells[begin : begin + side_by_side])
    slots = sum(worker.slots for worker in workers)
    more = f", {len(all_workers) - len(shown)} not shown" if len(shown) < len(all_workers) else ""
    return _panel(f"workers: {len(workers)} alive, {slots:,} slots{more}", table)


def _left_lately(progress: Progress, names: set[str]) -> Iterable[WorkerFigures]:
    """Return the workers that were alive within the last seconds and are not among `names`."""
    found: dict[str, WorkerFigures] = {}
    for sample in progress.samples[-GONE_SHOWN_S:]:
        for worker in (sample.figures.workers or ()) if sample.figures else ():
            if worker.name not in names:
                found[worker.name] = worker
    return found.values()


def _worker(worker: WorkerFigures, terminal: Look, width: int, *, is_gone: bool) -> Text:
    """Return the line of a worker: its name, a bar and the number of taken slots, and payments settled per second."""
    name_width = min(NAME_WIDTH_MAX, width // 3)
    name = worker.name if len(worker.name) <= name_width else worker.name[1 - name_width :].rjust(name_width, "~")
    if is_gone:
        return Text.assemble((f"{name:<{name_width}}", "dim strike"), ("  gone", "dim"))
    taken, slots = f"{worker.taken_slots:,}", f"/{worker.slots:,}"
    rate = f"{worker.settled_per_s:,.0f}/s".rjust(RATE_WIDTH)
    bar_width = max(1, width - name_width - 2 * len(slots) - RATE_WIDTH - 1)
    done = min(bar_width, round(bar_width * worker.taken_slots / max(1, worker.slots)))
    mark, blank = ("#", "-") if terminal.ascii_only else ("▆", "▁")
    style = "yellow" if worker.taken_slots >= worker.slots else "green"
    return Text.assemble(
        (f"{name:<{name_width}} ", "dim"),
        (mark * done, style), (blank * (bar_width - done), "grey30"),
        (taken.rjust(len(slots)), "bold"), (slots, "dim"), (rate, SETTLED),
        no_wrap=True,
    )  # fmt: skip


def _lines() -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=NAME_WIDTH, no_wrap=True)
    table.add_column(width=VALUE_WIDTH, justify="right")
    table.add_column(no_wrap=True)
    return table


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(
        content, title=Text(title, "bright_black bold"), title_align="left", border_style="grey37", padding=(0, 1)
    )


def _rate(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}"


def _spark(values: Sequence[float | None], top: float, terminal: Look) -> str:
    """Return the last values as a sparkline; a zero, and what is not known, is a blank."""
    levels = ASCII_LEVELS if terminal.ascii_only else LEVELS
    marks = []
    for value in values[-terminal.spark :]:
        level = round(value / top * len(levels)) if value and top else 0
        marks.append(levels[min(len(levels), max(1, level)) - 1] if value else " ")
    return "".join(marks)
