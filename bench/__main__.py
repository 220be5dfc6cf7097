"""`make bench`: what the service does on this machine. Compare figures of one run only: machines are noisy."""

import argparse
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from bench import compare, figures, response, scaling, volume
from bench.figures import Found
from bench.progress import console, say

OUT = Path("bench/out")

MEASURES: dict[str, Callable[[int], Found]] = {
    "versus": compare.versus,
    "end-to-end": volume.end_to_end,
    "latency": response.latency,
    "waiting": response.waiting,
    "full-database": volume.full_database,
    "in-gateway": response.in_gateway,
    "workers": scaling.workers,
    "embedded": volume.embedded_default,
    "overload": volume.overload,
}


def main() -> None:
    """Measure what the arguments ask for, everything by default."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=f"of: {', '.join(MEASURES)}; none = all")
    parser.add_argument("--seconds", type=int, default=12, choices=range(5, 61), metavar="5..60", help="of each load")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for bench.json and the plots")
    chosen = parser.parse_args()
    if unknown := set(chosen.measures) - set(MEASURES):
        parser.error(f"no such measure: {', '.join(sorted(unknown))}")
    console.print("  ".join(f"{name} {value}" for name, value in figures.machine().items()))
    began = monotonic()
    found: dict[str, Found] = {}
    written: list[Path] = []
    for name in chosen.measures or MEASURES:
        say(name)
        found[name] = MEASURES[name](chosen.seconds)
        written = figures.write(chosen.out, found, monotonic() - began)
    console.print(figures.table(found))
    console.print(f"in {monotonic() - began:.0f} s; written: {', '.join(map(str, written))}")


if __name__ == "__main__":
    main()
