"""The results of the measures: figures with their spread and goals, as a table, as JSON and as plots."""

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import orjson
import psutil
from rich.table import Table

from cli.load.plot import Plot, svg
from shared.version import VERSION


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound that a figure should reach."""

    text: str
    is_met: Callable[[float], bool]


def at_least(bound: float) -> Goal:
    """Return the goal that a figure is at least `bound`."""
    return Goal(f">= {bound:,g}", lambda value: value >= bound)


def at_most(bound: float) -> Goal:
    """Return a goal that is met by every value up to and including `bound`."""
    return Goal(f"<= {bound:,g}", lambda value: value <= bound)


def below(bound: float) -> Goal:
    """Return the goal that a figure is less than `bound`."""
    return Goal(f"< {bound:,g}", lambda value: value < bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure. If it was measured in several turns, it is their median, with the lowest and the highest value."""

    name: str
    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None
    goal: Goal | None = None
    digits: int = 0

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        return self.goal.is_met(self.value) if self.goal else None

    def text(self) -> str:
        """Return the figure as text, for the table."""
        spread = "" if self.low is None else f" ({self.low:,.{self.digits}f} to {self.high:,.{self.digits}f})"
        return f"{self.value:,.{self.digits}f}{spread} {self.unit}".rstrip()

    def document(self) -> dict[str, Any]:
        """Return the figure as a JSON object."""
        values = {name: getattr(self, name) for name in ("name", "value", "unit", "low", "high")}
        return values | {"goal": self.goal.text if self.goal else None, "met": self.is_met}


def of_turns(
    name: str, values: Sequence[float], unit: str = "", *, goal: Goal | None = None, digits: int = 0
) -> Figure:
    """Return the median of several turns, with their lowest and highest value."""
    return Figure(
        name=name, value=median(values), low=min(values), high=max(values), unit=unit, goal=goal, digits=digits
    )


def ratios(name: str, ours: Sequence[float], theirs: Sequence[float], goal: Goal) -> Figure:
    """Return the ratio of both sides, computed for each turn: noise of the machine that both saw cancels out."""
    return of_turns(name, [mine / other for mine, other in zip(ours, theirs, strict=True)], "x", goal=goal, digits=3)


def percentiles_ms(values_s: Sequence[float]) -> dict[int, float]:
    """Return p50, p95 and p99 in milliseconds, by percent, of durations in seconds."""
    cuts = quantiles(values_s, n=100) if len(values_s) > 1 else [*values_s, 0.0][:1] * 99
    return {percent: cuts[percent - 1] * 1000 for percent in (50, 95, 99)}


@dataclass(slots=True)
class Found:
    """The results of one measure."""

    figures: list[Figure] = field(default_factory=list)
    # By the name of the file.
    plots: dict[str, Plot] = field(default_factory=dict)
    # Further values for the JSON only.
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: float, unit: str = "", *, goal: Goal | None = None, digits: int = 0) -> None:
        """Add a figure."""
        self.figures.append(Figure(name=name, value=value, unit=unit, goal=goal, digits=digits))


def machine() -> dict[str, Any]:
    """Return a description of this machine."""
    return {
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def table(found: dict[str, Found]) -> Table:
    """Return a table of all figures."""
    page = Table("measure", "figure", "measured", "to reach", title="Payment service, everything on this machine")
    for name, one in found.items():
        for index, figure in enumerate(one.figures):
            goal = figure.goal.text if figure.goal else ""
            style = {None: "", True: "green", False: "bold yellow"}[figure.is_met]
            page.add_row(name if not index else "", figure.name, figure.text(), goal, style=style)
    return page


def write(folder: Path, found: dict[str, Found], took_s: float) -> list[Path]:
    """Write `bench.json` and the plots into `folder`, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "version": VERSION,
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_s": round(took_s),
        "machine": machine(),
        "measures": {
            name: {
                "figures": [figure.document() for figure in one.figures],
                "plots": {file: asdict(plot) for file, plot in one.plots.items()},
                **one.notes,
            }
            for name, one in found.items()
        },
    }
    written = [folder / "bench.json"]
    written[0].write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    for one in found.values():
        for file, plot in one.plots.items():
            written.append(folder / file)
            written[-1].write_text(svg(plot))
    return written
