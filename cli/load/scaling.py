"""The results of the same load with 1, 2, 4 ... workers, compared with what their slots could do at most."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from cli.load.plan import Plan, Refused
from cli.load.plot import GREEN, GREY, Line, Plot
from cli.load.progress import Progress
from cli.load.report import exit_code, settled_while_sending
from shared.config.settings import Settings

# Worker processes. Each takes 100 MB of memory and, at its start, a second of a core.
WORKERS_MAX = 16
STEPS_MAX = 8
SLOTS_MAX = 2000
DEFAULT_SLOTS = 50
# The load offers so many times what the largest number of workers can do, so that slots are never idle.
SURPLUS = 1.2
# A step that settles this share of what is possible is shown in green.
GOOD_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Step:
    """The result with one number of workers."""

    workers: int
    # Slots of each worker.
    slots: int
    # Workers x slots / mean delay of the gateway.
    possible_per_s: float
    # None if the load was too short to measure it.
    settled_per_s: float | None
    # The least and the most that one worker settled, divided by an even share.
    least_share: float | None
    most_share: float | None
    accepted_p99_ms: float | None
    payments: int
    broken: int
    exit_code: int

    @property
    def share(self) -> float | None:
        """The settled payments per second, divided by the possible ones; None if they are unknown."""
        return None if self.settled_per_s is None else self.settled_per_s / self.possible_per_s


def parse_workers(text: str) -> list[int]:
    """Return the numbers of workers in a text such as `1,2,4`. Raises Refused."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= WORKERS_MAX for part in parts):
        raise Refused(f"--workers {text}: write numbers of workers from 1 to {WORKERS_MAX}, such as 1,2,4,8.")
    if len(parts) > STEPS_MAX:
        raise Refused(f"--workers {text}: write at most {STEPS_MAX} numbers.")
    return [int(part) for part in parts]


def mean_delay_s() -> float:
    """Return the mean delay in seconds of the simulated gateway at default settings."""
    defaults = Settings.model_construct()
    return (defaults.payment_processing_delay_min + defaults.payment_processing_delay_max) / 2 / 1000


def possible_per_s(workers: int, slots: int) -> float:
    """Return how many payments per second so many slots settle if they are never idle."""
    return workers * slots / mean_delay_s()


def saturating_rate(workers: Sequence[int], slots: int) -> float:
    """Return a rate per second that keeps all slots busy with the largest number of workers."""
    return float(round(SURPLUS * possible_per_s(max(workers), slots)))


def warm_up_s(plan: Plan, workers: int, slots: int) -> float:
    """Return the seconds after which all slots are taken and payments end at their full rate."""
    longest_s = Settings.model_construct().payment_processing_delay_max / 1000
    return longest_s + workers * slots / plan.rate


def measured(progress: Progress, workers: int, slots: int) -> Step:
    """Return the result of a run with `workers` workers of `slots` slots each."""
    after_s = warm_up_s(progress.plan, workers, slots)
    least, most = _shares(progress, after_s)
    latency = progress.request_counts.latency
    return Step(
        workers=workers,
        slots=slots,
        possible_per_s=possible_per_s(workers, slots),
        settled_per_s=settled_while_sending(progress, after_s=after_s),
        least_share=least,
        most_share=most,
        accepted_p99_ms=None if latency is None else latency.p99,
        payments=len(progress.payment_tally.known),
        broken=sum(broken.count for broken in progress.verdict.broken),
        exit_code=exit_code(progress),
    )


def table(steps: Sequence[Step]) -> RenderableType:
    """Return a table of all steps."""
    page = Table(box=box.ROUNDED, border_style="dim", header_style="dim")
    for heading in ("workers", "possible/s", "settled/s", "share", "spread", "202 p99", "broken"):
        page.add_column(heading, justify="right")
    for step in steps:
        share = step.share
        style = "bold green" if share is not None and share >= GOOD_SHARE else "bold yellow"
        spread = "-"
        if step.least_share is not None and step.most_share is not None:
            spread = f"{step.least_share - 1:+.0%} {step.most_share - 1:+.0%}"
        page.add_row(
            str(step.workers),
            f"{step.possible_per_s:,.1f}",
            Text("-" if step.settled_per_s is None else f"{step.settled_per_s:,.1f}", style),
            "-" if share is None else f"{share:.1%}",
            spread,
            "-" if step.accepted_p99_ms is None else f"{step.accepted_p99_ms:,.0f} ms",
            Text(f"{step.broken:,}", "bold red" if step.broken else "dim"),
        )
    return page


def plot(steps: Sequence[Step], subtitle: str) -> Plot:
    """Return a plot of the measured throughput beside the possible one."""
    ordered = sorted(steps, key=lambda step: step.workers)
    measured_points = [(float(step.workers), step.settled_per_s) for step in ordered if step.settled_per_s is not None]
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
            Line("measured", measured_points, GREEN, has_points=True),
        ),
        x_ticks=sorted({float(step.workers) for step in ordered}),
    )


def document(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Return all steps, for `--json`."""
    return [asdict(step) | {"share": step.share} for step in steps]


def _shares(progress: Progress, after_s: float) -> tuple[float | None, float | None]:
    """Return the least and the most that one worker settled while all slots were busy, divided by an even share."""
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
