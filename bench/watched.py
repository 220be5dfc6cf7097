"""The measure of what the dashboard costs the API while it is watched."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from bench.figures import Found, below, of_turns
from bench.flows import other_answers, plan
from bench.progress import print_step
from bench.stack import Stack, process, production, run_load
from cli.local.service import CHECKOUT, clean_environment, wait_until
from cli.tokens import mint

RATE, VIEWERS, PAIRS = 300, 20, 5
IDLE_PAIRS, IDLE_S, SETTLED_AFTER_S = 2, 6, 5
STREAMS_WITHIN_S = 15


def dashboard(seconds: int) -> Found:
    """Measure the processor time of the API under load, without viewers and with them, in pairs."""
    without: list[float] = []
    watched: list[float] = []
    others = 0
    with production({"DASHBOARD": "on"}) as stack:
        run_load(stack, plan(stack, "warm", 4, rate=RATE))
        # What was accepted is settled, so that the API has nothing to do.
        sleep(SETTLED_AFTER_S)
        idle = [_idle_cost(stack) for _ in range(IDLE_PAIRS)]
        for pair in range(PAIRS):
            print_step(f"pair {pair + 1} of {PAIRS}")
            # Every other pair begins with the viewers: what changes with time falls on both sides.
            for has_viewers in (False, True) if pair % 2 == 0 else (True, False):
                run = f"{'watched' if has_viewers else 'alone'}-{pair}"
                if has_viewers:
                    with _viewers(stack):
                        share, refused = _api_share(stack, run, seconds)
                else:
                    share, refused = _api_share(stack, run, seconds)
                (watched if has_viewers else without).append(share)
                others += refused
    found = Found()
    found.figures.append(
        of_turns(f"API without a load, what {VIEWERS} streams cost", idle, "ms of processor per s", digits=1)
    )
    found.figures.append(of_turns(f"API at {RATE}/s, unwatched", without, "ms of processor per s"))
    found.figures.append(
        of_turns(f"API at {RATE}/s, {VIEWERS} streams of the overview", watched, "ms of processor per s")
    )
    costs = [more - less for more, less in zip(watched, without, strict=True)]
    found.figures.append(of_turns("  what the streams cost", costs, "ms of processor per s", goal=below(50)))
    found.add("  other answers than 201 and 202", others, goal=below(1))
    return found


def _idle_cost(stack: Stack) -> float:
    """Return the milliseconds of processor per second that the streams cost an API that has nothing else to do."""
    before = _idle_share(stack)
    with _viewers(stack):
        return _idle_share(stack) - before


def _idle_share(stack: Stack) -> float:
    began, before = monotonic(), stack.cpu_s()["api"]
    sleep(IDLE_S)
    return 1000 * (stack.cpu_s()["api"] - before) / (monotonic() - began)


def _api_share(stack: Stack, run: str, seconds: int) -> tuple[float, int]:
    """Return the milliseconds of processor that the API takes per second of a load, and the other answers."""
    load = plan(stack, run, seconds, rate=RATE)
    before = stack.cpu_s()["api"]
    result = run_load(stack, load)
    return 1000 * (stack.cpu_s()["api"] - before) / result["took_s"], other_answers(result)


@contextmanager
def _viewers(stack: Stack) -> Iterator[None]:
    """Hold the streams until the block ends; it begins when all of them have had figures."""
    bearer = mint(stack.settings, user="bench", role="admin", hours=1)
    command = [sys.executable, "-m", "bench.viewers", stack.url, bearer, str(VIEWERS)]
    with tempfile.TemporaryDirectory(prefix="payments-bench-") as folder:
        log = Path(folder) / "viewers.log"
        with process(command, CHECKOUT, log, clean_environment(os.environ)):
            wait_until(
                lambda: len(log.read_text().split()) == VIEWERS,
                timeout_s=STREAMS_WITHIN_S,
                what="all viewers have had figures",
            )
            yield
