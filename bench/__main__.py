"""`make bench`: measures the service on this machine. Compare only figures of the same run: machines are noisy."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic

from bench import against, compare, figures, hostile, later, response, scaling, shares, volume, watched
from bench.figures import Found
from bench.progress import console, print_step

OUT = Path("bench/out")
AGAINST, AGAINST_ARGUMENTS = "against", 2

MEASURES: dict[str, Callable[[int], Found]] = {
    "versus": compare.versus,
    "end-to-end": volume.end_to_end,
    "latency": response.latency,
    "waiting": response.waiting,
    "full-database": volume.full_database,
    "in-gateway": response.in_gateway,
    "workers": scaling.workers,
    "refunds": later.refunds,
    "captures": later.captures,
    "embedded": volume.embedded_default,
    "overload": volume.overload,
    "deliveries": shares.deliveries,
    "burst": shares.burst,
    "hanging-names": shares.hanging_names,
    "hanging-server": shares.hanging_server,
    "slow-path": shares.slow_path,
    "hostile": hostile.hostile,
    "dashboard": watched.dashboard,
}


def main() -> None:
    """Run the measures that the arguments name, by default all of them."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "measures",
        nargs="*",
        metavar="MEASURE",
        help=f"one or more of: {', '.join(MEASURES)} (default: all). Or `against REV`, which compares the processor "
        "time per payment with that at another revision.",
    )
    parser.add_argument(
        "--seconds",
        type=int,
        default=12,
        choices=range(5, 61),
        metavar="5..60",
        help="The duration of each load, in seconds.",
    )
    parser.add_argument("--out", type=Path, default=OUT, help="The folder for bench.json and the plots.")
    chosen = parser.parse_args()
    measures = MEASURES
    if chosen.measures[:1] == [AGAINST]:
        if len(chosen.measures) != AGAINST_ARGUMENTS:
            parser.error("Write `against REV`, with one revision.")
        measures = {AGAINST: partial(against.against, chosen.measures[1])}
        chosen.measures = [AGAINST]
    if unknown := set(chosen.measures) - set(measures):
        parser.error(f"There is no measure with this name: {', '.join(sorted(unknown))}.")
    console.print("  ".join(f"{name} {value}" for name, value in figures.machine().items()))
    began = monotonic()
    found: dict[str, Found] = {}
    written: list[Path] = []
    for name in chosen.measures or measures:
        print_step(name)
        found[name] = measures[name](chosen.seconds)
        written = figures.write(chosen.out, found, monotonic() - began)
    console.print(figures.table(found))
    console.print(f"Measured in {monotonic() - began:.0f} s. Written: {', '.join(map(str, written))}")


if __name__ == "__main__":
    main()
