"""Measure of scaling: runs `payments load --workers`, and compares its figures with the goals."""

import subprocess
import tempfile
from pathlib import Path

import orjson

from bench.figures import Found, at_least, below
from bench.stack import COMMAND
from cli.local.service import CHECKOUT

WORKERS, SLOTS = "1,2,4,8", 50
TIMEOUT_S = 600
SHARE, SPREAD = 0.95, 0.15


def workers(seconds: int) -> Found:
    """Measure how much of what their slots allow 1, 2, 4 and 8 workers of 50 slots settle."""
    found = Found()
    with tempfile.TemporaryDirectory(prefix="payments-bench-") as folder:
        result_file = Path(folder) / "load.json"
        load = [
            "load",
            "--workers",
            WORKERS,
            "--slots",
            str(SLOTS),
            "--duration",
            str(seconds + 10),
            "--json",
            str(result_file),
        ]
        done = subprocess.run(
            [*COMMAND, *load], cwd=CHECKOUT, check=False, timeout=TIMEOUT_S, stdout=subprocess.DEVNULL
        )
        # 1 = a payment was lost or charged twice: the result says how many.
        if done.returncode not in {0, 1}:
            raise RuntimeError(f"payments load ended with exit code {done.returncode}")
        document = orjson.loads(result_file.read_bytes())
    for step in document["steps"]:
        name = f"{step['workers']} workers of {SLOTS} slots: settled, part of {step['possible_per_s']:.0f}/s"
        found.add(name, step["share"] or 0.0, digits=2, goal=at_least(SHARE))
        if step["workers"] > 1 and step["most_share"] is not None:
            apart = max(step["most_share"] - 1, 1 - step["least_share"])
            found.add("  farthest from an even share", apart, digits=2, goal=below(SPREAD))
        found.add("  lost or charged twice", step["broken"], goal=below(1))
    found.notes["load"] = document
    return found
