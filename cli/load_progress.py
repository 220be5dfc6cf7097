"""What a run shows of itself while it goes on, second by second. It does nothing."""

from dataclasses import dataclass, field
from time import monotonic

from cli.load_book import Book
from cli.load_checks import Verdict
from cli.load_client import Figures
from cli.load_plan import Plan
from cli.load_stage import Stage
from cli.load_tally import Second, Spread, Tally


@dataclass(frozen=True, slots=True)
class Sample:
    """What could be seen at the end of one second."""

    at_s: int
    second: Second
    latency: Spread | None  # of the last seconds
    settled: int  # known to have ended, since the start
    figures: Figures | None
    webhooks: int | None


@dataclass(slots=True)
class Progress:
    """All there is to see of a run; it changes while one looks."""

    plan: Plan
    stage: Stage
    title: str = ""
    phase: str = "preparing"
    began: float = field(default_factory=monotonic)
    sent_for_s: float = 0.0  # how long arrivals came
    took_s: float = 0.0  # with the wait for the ends and the checks
    tally: Tally = field(default_factory=Tally)
    book: Book = field(default_factory=lambda: Book("-"))
    figures: Figures | None = None
    samples: list[Sample] = field(default_factory=list)  # one per second
    trouble: str = ""  # the last thing that went wrong with a question of ours
    webhooks: int | None = None  # payments told of; None: nobody listens
    verdict: Verdict = field(default_factory=Verdict)
    is_interrupted: bool = False

    @property
    def elapsed_s(self) -> float:
        """Since the first arrival was due."""
        return monotonic() - self.began
