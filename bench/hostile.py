"""A measure of what payers notice of ten thousand hostile connections."""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import sleep, time
from typing import Any

import orjson

from bench.attack import FILES, RAMP_S, raise_file_limit
from bench.figures import Found, below, of_turns, percentiles_ms, ratios
from bench.flows import accepted, other_answers, plan
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
    """Measure payers' p99 at 100/s without and with the attack, in turn, and the API's memory."""
    raise_file_limit(FILES)
    alone: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    found = Found()
    with production() as stack:
        resource.prlimit(stack.processes["api"].pid, resource.RLIMIT_NOFILE, (FILES, FILES))
        run_load(stack, plan(stack, "warm", 5, rate=RATE))
        before_mib = stack.memory_mib("api")
        memory: list[list[tuple[float, float]]] = []
        for turn in range(TURNS):
            print_step(f"turn {turn + 1} of {TURNS}: {RATE} payments per second, alone")
            alone.append(run_load(stack, plan(stack, "alone", max(seconds, PAYING_S), rate=RATE)))
            print_step(f"the same beside {CONNECTIONS:,} hostile connections")
            with _attack(stack) as (attack, samples):
                sleep(RAMP_S)
                beside.append(run_load(stack, plan(stack, "beside", PAYING_S, rate=RATE)))
            beside[-1]["attack"] = attack
            memory.append(samples)
            sleep(AFTER_S)
        after_mib = stack.memory_mib("api")
    _add_latencies(found, alone, beside)
    _add_memory(found, before_mib, memory, after_mib)
    _add_attack(found, [turn["attack"] for turn in beside])
    return found


def _add_latencies(found: Found, alone: list[dict[str, Any]], beside: list[dict[str, Any]]) -> None:
    cuts = [[percentiles_ms(turn["latencies_s"]) for turn in side] for side in (alone, beside)]
    for percent in (50, 99):
        mine, theirs = ([turn[percent] for turn in side] for side in cuts)
        found.figures.append(of_turns(f"accept at {RATE}/s alone, p{percent}", mine, "ms", digits=1))
        found.figures.append(of_turns("  beside the attack", theirs, "ms", digits=1))
        goal = below(2)
        found.figures.append(ratios("  beside the attack : alone", theirs, mine, goal))
    found.add("accepted beside the attack", sum(map(accepted, beside)))
    found.add("  other answers than 202", sum(map(other_answers, beside)), goal=below(1))


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
