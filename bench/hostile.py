"""A measure of what payers notice of ten thousand hostile connections."""

import contextlib
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from time import sleep, time
from typing import Any

import orjson

from bench.attack import FILES, RAMP_S, raise_file_limit
from bench.figures import Found, below, of_turns, percentiles_ms, ratios
from bench.flows import accepted, other_answers, plan
from bench.front import behind_nginx, find_nginx
from bench.progress import print_step
from bench.stack import Stack, production, run_load
from cli.local.service import CHECKOUT

RATE = 100
CONNECTIONS = 10_000
TURNS = 3
# Seconds of payments beside the attack once all connections are there, and at least as many without it: a p99 needs
# thousands of payments. Every hostile connection is ended and made again in this time.
PAYING_S = 60
ATTACK_S = int(RAMP_S) + PAYING_S + 5
# Seconds after the attack: idle connections are gone, and the allocator has had time.
AFTER_S = 5
SAMPLE_S = 0.5


def hostile(seconds: int) -> Found:
    """Measure payers' p99 at 100/s without and with the attack, in turn, and the API's memory; also behind nginx."""
    raise_file_limit(FILES)
    found = Found()
    with production() as stack, contextlib.ExitStack() as fronts:
        resource.prlimit(stack.processes["api"].pid, resource.RLIMIT_NOFILE, (FILES, FILES))
        run_load(stack, plan(stack, "warm", 5, rate=RATE))
        ways = [_Way("", stack)]
        if nginx := find_nginx():
            ways.append(_Way(", behind nginx", fronts.enter_context(behind_nginx(stack, nginx))))
        before_mib = stack.memory_mib("api")
        for turn in range(TURNS):
            for way in ways:
                print_step(f"turn {turn + 1} of {TURNS}: {RATE} payments per second{way.name}, alone")
                way.measure(seconds)
        after_mib = stack.memory_mib("api")
    for way in ways:
        _add_latencies(found, way)
    _add_memory(found, before_mib, ways[0].memory, after_mib)
    _add_attack(found, [turn["attack"] for turn in ways[0].beside])
    return found


@dataclass
class _Way:
    """A way to the API, and what was measured on it: loads alone, beside the attack, and the API's memory meanwhile."""

    name: str
    stack: Stack
    alone: list[dict[str, Any]] = field(default_factory=list)
    beside: list[dict[str, Any]] = field(default_factory=list)
    memory: list[list[tuple[float, float]]] = field(default_factory=list)

    def measure(self, seconds: int) -> None:
        self.alone.append(run_load(self.stack, plan(self.stack, "alone", max(seconds, PAYING_S), rate=RATE)))
        print_step(f"the same beside {CONNECTIONS:,} hostile connections")
        with _attack(self.stack) as (attack, samples):
            sleep(RAMP_S)
            self.beside.append(run_load(self.stack, plan(self.stack, "beside", PAYING_S, rate=RATE)))
        self.beside[-1]["attack"] = attack
        self.memory.append(samples)
        sleep(AFTER_S)


def _add_latencies(found: Found, way: _Way) -> None:
    cuts = [[percentiles_ms(turn["latencies_s"]) for turn in side] for side in (way.alone, way.beside)]
    for percent in (50, 99):
        mine, theirs = ([turn[percent] for turn in side] for side in cuts)
        found.figures.append(of_turns(f"accept at {RATE}/s{way.name}, alone, p{percent}", mine, "ms", digits=1))
        found.figures.append(of_turns("  beside the attack", theirs, "ms", digits=1))
        goal = below(2)
        found.figures.append(ratios("  beside the attack : alone", theirs, mine, goal))
    found.add("accepted beside the attack", sum(map(accepted, way.beside)))
    found.add("  other answers than 202", sum(map(other_answers, way.beside)), goal=below(1))


def _add_memory(found: Found, before_mib: float, memory: list[list[tuple[float, float]]], after_mib: float) -> None:
    """Add the API's memory. In an attack it must not grow once all connections are there."""
    halves = [(samples[: len(samples) // 2], samples[len(samples) // 2 :]) for samples in memory]
    growth = [max(mib for _, mib in last) - max(mib for _, mib in first) for first, last in halves]
    found.add("API memory before", before_mib, "MiB")
    found.figures.append(of_turns("  during, at most", [max(mib for _, mib in one) for one in memory], "MiB"))
    found.figures.append(of_turns("  second half of an attack - first half", growth, "MiB", goal=below(10), digits=1))
    found.add(f"  {AFTER_S} s after the last attack", after_mib, "MiB")
    found.notes["memory_mib"] = memory


def _add_attack(found: Found, attacks: list[dict[str, Any]]) -> None:
    found.figures.append(of_turns("hostile connections open at once, at most", [one["open_most"] for one in attacks]))
    found.figures.append(of_turns("  made and made again in an attack", [sum(one["made"].values()) for one in attacks]))
    found.figures.append(of_turns("  cores used by the attacker", [one["cpu_share"] for one in attacks], digits=2))
    found.notes["answers"] = [one["answers"] for one in attacks]


@contextmanager
def _attack(stack: Stack) -> Iterator[tuple[dict[str, Any], list[tuple[float, float]]]]:
    """Attack the API until the block ends, for ATTACK_S seconds.

    After the block, the first value has the results of the attack, and the second one the API's memory in MiB at
    moments in it.
    """
    result: dict[str, Any] = {}
    samples: list[tuple[float, float]] = []
    ended = Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_S):
            samples.append((time(), stack.memory_mib("api")))

    with tempfile.TemporaryDirectory(prefix="payments-bench-") as folder:
        plan_file, result_file = Path(folder) / "plan", Path(folder) / "result"
        plan_file.write_bytes(orjson.dumps({"url": stack.url, "connections": CONNECTIONS, "duration_s": ATTACK_S}))
        sampler = Thread(target=sample, daemon=True)
        sampler.start()
        attacker = subprocess.Popen([sys.executable, "-m", "bench.attack", plan_file, result_file], cwd=CHECKOUT)
        try:
            yield result, samples
            attacker.wait(2 * ATTACK_S)
        finally:
            ended.set()
            attacker.kill()
            attacker.wait()
        sampler.join()
        result |= orjson.loads(result_file.read_bytes())
        # Until all connections are there the memory grows with their number.
        samples[:] = [(at, mib) for at, mib in samples if at >= result["complete_at"]]
