"""The same load with 1, 2, 4 ... workers in turn, against what their slots could do if nothing else took time."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from cli.load_plan import Plan, Refused
from cli.load_plot import GREEN, GREY, Line, Plot
from cli.load_progress import Progress
from cli.load_report import exit_code, settled_while_sending
from shared.config import Settings

WORKERS_MAX = 16  # processes; each takes 100 MB and, at the start, a second of a core
STEPS_MAX = 8
SLOTS_MAX = 2000
DEFAULT_SLOTS = 50
SURPLUS = 1.2  # offered beyond what the most workers can do, so that slots are never idle
GOOD_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Step:
    """What one number of workers did."""

    workers: int
    slots: int  # of each
    possible_per_s: float  # workers x slots / mean delay
    settled_per_s: float | None  # None: the load was too short to tell
    least_share: float | None  # of a worker, as a part of an even one
    most_share: float | None
    accepted_p99_ms: float | None
    payments: int
    broken: int
    exit_code: int

    @property
    def share(self) -> float | None:
        """Of what is possible."""
        return None if self.settled_per_s is None else self.settled_per_s / self.possible_per_s


def parse_workers(text: str) -> list[int]:
    """How many workers in turn, from `1,2,4`. Raises Refused."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= WORKERS_MAX for part in parts):
        raise Refused(f"--workers {text}: write numbers of workers from 1 to {WORKERS_MAX}, such as 1,2,4,8")
    if len(parts) > STEPS_MAX:
        raise Refused(f"--workers {text}: at most {STEPS_MAX} steps")
    return [int(part) for part in parts]


def mean_delay_s() -> float:
    """How long the simulated gateway of our stacks takes, on average: they run on the defaults."""
    defaults = Settings.model_construct()
    return (defaults.payment_processing_delay_min + defaults.payment_processing_delay_max) / 2 / 1000


def possible_per_s(workers: int, slots: int) -> float:
    """What so many slots can settle per second if they are never idle."""
    return workers * slots / mean_delay_s()


def saturating_rate(workers: Sequence[int], slots: int) -> float:
    """A rate that keeps every slot of the most workers busy, per second."""
    return float(round(SURPLUS * possible_per_s(max(workers), slots)))


def warm_up_s(plan: Plan, workers: int, slots: int) -> float:
    """After so long every slot is taken and ends come as often as they ever will."""
    longest_s = Settings.model_construct().payment_processing_delay_max / 1000
    return longest_s + workers * slots / plan.rate


def measured(progress: Progress, workers: int, slots: int) -> Step:
    """The step that a run was."""
    after_s = warm_up_s(progress.plan, workers, slots)
    least, most = _shares(progress, after_s)
    latency = progress.tally.latency
    return Step(
        workers=workers,
        slots=slots,
        possible_per_s=possible_per_s(workers, slots),
        settled_per_s=settled_while_sending(progress, after_s=after_s),
        least_share=least,
        most_share=most,
        accepted_p99_ms=None if latency is None else latency.p99,
        payments=len(progress.book.known),
        broken=sum(broken.count for broken in progress.verdict.broken),
        exit_code=exit_code(progress),
    )


def table(steps: Sequence[Step]) -> RenderableType:
    """All steps on one page."""
    page = Table(box=box.ROUNDED, border_style="dim", header_style="dim")
    for heading in ("workers", "possible/s", "settled/s", "share", "spread", "202 p99", "broken"):
        page.add_column(heading, justify="right")
    for step in steps:
        share = step.share
        style = "bold green" if share is not None and share >= GOOD_SHARE else "bold yellow"
        evenly = "-"
        if step.least_share is not None and step.most_share is not None:
            evenly = f"{step.least_share - 1:+.0%} {step.most_share - 1:+.0%}"
        page.add_row(
            str(step.workers),
            f"{step.possible_per_s:,.1f}",
            Text("-" if step.settled_per_s is None else f"{step.settled_per_s:,.1f}", style),
            "-" if share is None else f"{share:.1%}",
            evenly,
            "-" if step.accepted_p99_ms is None else f"{step.accepted_p99_ms:,.0f} ms",
            Text(f"{step.broken:,}", "bold red" if step.broken else "dim"),
        )
    return page


def plot(steps: Sequence[Step], subtitle: str) -> Plot:
    """Measured throughput beside the line of what is possible."""
    ordered = sorted(steps, key=lambda step: step.workers)
    told = [(float(step.workers), step.settled_per_s) for step in ordered if step.settled_per_s is not None]
    return Plot(
        title="Settled payments per second, by workers",
        subtitle=subtitle,
        x_name="workers",
        y_name="payments/s",
        lines=(
            Line(
                "workers x slots / mean delay",
                [(0.0, 0.0), *((float(step.workers), step.possible_per_s) for step in ordered)],
                GREY,
                is_dashed=True,
            ),
            Line("measured", told, GREEN, has_points=True),
        ),
        x_ticks=sorted({float(step.workers) for step in ordered}),
    )


def document(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """All steps, for `--json`."""
    return [asdict(step) | {"share": step.share} for step in steps]


def _shares(progress: Progress, after_s: float) -> tuple[float | None, float | None]:
    """The least and the most that a worker settled while all slots were busy, as a part of an even share."""
    within = [
        {worker.name: worker.settled for worker in sample.figures.workers}
        for sample in progress.samples
        if sample.figures is not None and sample.figures.workers and after_s <= sample.at_s <= progress.sent_for_s
    ]
    if len(within) < 2:  # noqa: PLR2004 - a difference needs two
        return None, None
    first, last = within[0], within[-1]
    done = [last[name] - first[name] for name in first.keys() & last.keys()]
    if not sum(done):
        return None, None
    even = sum(done) / len(done)
    return min(done) / even, max(done) / even
