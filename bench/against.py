"""`make bench ARGS="against REV"`: compares the processor time of a payment with that at another revision.

The revision is cloned into a temporary folder and runs with the packages of this checkout. The two sides run in turns,
in pairs, so that both see the same noise of the machine. The goal is on the processor time per payment, because it is
the steadiest figure.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Found, at_most, of_turns, ratios
from bench.flows import accepted, flow, plan
from bench.progress import print_step
from bench.stack import PARTS, Stack, production, run_load
from cli.local.service import CHECKOUT

# Payments per second: less than half of what each side settles on two cores, so that neither has a backlog.
RATE = 300
PAIRS = 7
WARM_S = 4
# A payment may cost 3 % more than at the other revision.
RATIO_MAX = 1.03
CONNECTIONS = 100


@dataclass
class Side:
    """One of the two revisions, with the results of its runs."""

    name: str
    checkout: Path
    # Processor milliseconds per payment, by part and for `all` parts together: one value for each run.
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    # Payments accepted per second while CONNECTIONS connections send without a pause: one value for each run.
    accepted_per_s: list[float] = field(default_factory=list)

    def add(self, part: str, value: float) -> None:
        """Add the processor milliseconds per payment of one run."""
        self.cpu_ms.setdefault(part, []).append(value)

    @property
    def totals(self) -> list[float]:
        """Processor milliseconds per payment of all parts together: one value for each run."""
        return self.cpu_ms["all"]


def against(revision: str, seconds: int) -> Found:
    """Compare this checkout with `revision` in runs of `seconds` seconds.

    Raises CalledProcessError if there is no such revision, and RuntimeError if a payment of a run gets no webhook.
    """
    with _cloned(revision) as (commit, folder):
        sides = Side(commit, folder), Side("this checkout", CHECKOUT)
        for pair in range(1, PAIRS + 1):
            # The order changes with every pair: neither side always runs on the warmer machine.
            for side in sides if pair % 2 else reversed(sides):
                print_step(f"pair {pair} of {PAIRS}: {side.name}")
                with production(checkout=side.checkout) as stack:
                    _measure(stack, side, seconds)
    return _found(*sides)


def _measure(stack: Stack, side: Side, seconds: int) -> None:
    stack.register_receiver()
    flow(stack, WARM_S, RATE)
    # `flow` waits for the webhooks, so the time until each payment of the run has its webhook is counted.
    before = stack.cpu_s()
    result, received, _, _ = flow(stack, seconds, RATE)
    after = stack.cpu_s()
    payments = accepted(result)
    if len(received) < payments:
        raise RuntimeError(f"{side.name}: {payments - len(received)} of {payments} payments have no webhook")
    used_ms = {part: (after[part] - before[part]) * 1000 / payments for part in PARTS}
    for part, value in used_ms.items():
        side.add(part, value)
    side.add("all", sum(used_ms.values()))
    result = run_load(stack, plan(stack, "accept", seconds // 2, connections=CONNECTIONS))
    side.accepted_per_s.append(accepted(result) / result["took_s"])


def _found(old: Side, new: Side) -> Found:
    found = Found()
    name = f"processor time per payment at {RATE}/s, {new.name} : {old.name}"
    found.figures.append(ratios(name, new.totals, old.totals, at_most(RATIO_MAX)))
    for part in ("all", *PARTS):
        for side in (old, new):
            found.figures.append(of_turns(f"  {part}, {side.name}", side.cpu_ms[part], "ms", digits=3))
    for side in (old, new):
        found.figures.append(of_turns(f"accepted/s at {CONNECTIONS} connections, {side.name}", side.accepted_per_s))
    found.notes["runs"] = {
        side.name: {"cpu_ms": side.cpu_ms, "accepted_per_s": side.accepted_per_s} for side in (old, new)
    }
    return found


@contextmanager
def _cloned(revision: str) -> Iterator[tuple[str, Path]]:
    """Clone the revision into a temporary folder. Yield its short commit id and the folder."""
    commit = _git("rev-parse", "--short", "--verify", f"{revision}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="payments-bench-") as folder:
        checkout = Path(folder) / "checkout"
        _git("clone", "--quiet", "--no-checkout", str(CHECKOUT), str(checkout))
        _git("-C", str(checkout), "checkout", "--quiet", "--detach", commit)
        yield commit, checkout


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=CHECKOUT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()
