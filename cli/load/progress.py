"""The state of a run that the live view and the report show. It only holds data."""

from dataclasses import dataclass, field
from time import monotonic

from cli.load.checks import LoadVerdict
from cli.load.client import Figures
from cli.load.later_tally import LaterTally
from cli.load.payment_tally import PaymentTally
from cli.load.plan import Plan
from cli.load.request_counts import RequestCounts, Second, Spread
from cli.load.targets import Target


@dataclass(frozen=True, slots=True)
class Sample:
    """What was known at the end of one second of a run."""

    at_s: int
    second: Second
    # Of the requests that were accepted in the last seconds.
    latency: Spread | None
    # Payments that are known to have ended since the start.
    settled: int
    figures: Figures | None
    webhooks: int | None


@dataclass(slots=True)
class Progress:
    """Everything that is known of a run. The run changes it while the view reads it."""

    plan: Plan
    target: Target
    title: str = ""
    phase: str = "preparing"
    began: float = field(default_factory=monotonic)
    # Seconds in which intents arrived.
    sent_for_s: float = 0.0
    # Seconds of the whole run, with the wait for the ends of payments and the checks.
    took_s: float = 0.0
    request_counts: RequestCounts = field(default_factory=RequestCounts)
    payment_tally: PaymentTally = field(default_factory=lambda: PaymentTally("-"))
    later_tally: LaterTally = field(default_factory=LaterTally)
    figures: Figures | None = None
    # One sample for each second.
    samples: list[Sample] = field(default_factory=list)
    # What is wrong with the service or with the last request for figures; empty if nothing is.
    error: str = ""
    # Payments, and refunds, whose webhook was received; None if the run has no receiver.
    webhooks: int | None = None
    refund_webhooks: int | None = None
    verdict: LoadVerdict = field(default_factory=LoadVerdict)
    is_interrupted: bool = False

    @property
    def elapsed_s(self) -> float:
        """Seconds since the arrivals began."""
        return monotonic() - self.began
