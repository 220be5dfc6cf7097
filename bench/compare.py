"""Ours, the usual way of building it and the bare route, in turns, each turn on servers of its own."""

from bench.figures import Found, at_least, below, of_turns, percentiles_ms, ratios
from bench.flows import accepted, flow, others, plan, told_per_s
from bench.progress import say
from bench.stack import bare_route, production, run_load, typical

TURNS = 3
WARM_S = 3
OFFERED = {"ours": 900, "typical": 250}  # intents per second: more than either settles, less than drowns it


def versus(seconds: int) -> Found:
    """Accepting at 100 connections, and the whole way to the webhook."""
    rates: dict[str, list[float]] = {"ours": [], "typical": [], "bare": []}
    slowest: dict[str, list[float]] = {"ours": [], "typical": [], "bare": []}
    generator: list[float] = []
    told: dict[str, list[float]] = {"ours": [], "typical": []}
    errors = 0
    for turn in range(1, TURNS + 1):
        for name, start in (("ours", production), ("typical", typical), ("bare", bare_route)):
            say(f"turn {turn} of {TURNS}: {name} accepts")
            with start() as stack:
                run_load(stack, plan(stack, "warm", WARM_S))
                result = run_load(stack, plan(stack, "accept", seconds))
            rates[name].append(accepted(result) / result["took_s"])
            slowest[name].append(percentiles_ms(result["latencies_s"])[99])
            generator.append(result["cpu_share"])
            errors += others(result) if name == "ours" else 0
            if name in told:
                say(f"turn {turn} of {TURNS}: {name} from the intent to the webhook")
                with start() as stack:
                    stack.register_receiver()
                    _, received, began, ended = flow(stack, seconds, OFFERED[name])
                told[name].append(told_per_s(received, began, ended))
    found = Found()
    for name, values in rates.items():
        found.figures.append(of_turns(f"accepted/s at 100 connections, {name}", values))
        found.figures.append(of_turns("  p99", slowest[name], "ms", goal=below(200) if name == "ours" else None))
    found.add("  other answers than 202, ours", errors, goal=below(1))
    found.add("  cores used by the generator, at most", max(generator), digits=2)
    found.figures.append(ratios("accepted, ours : typical", rates["ours"], rates["typical"], at_least(4)))
    found.figures.append(ratios("accepted, ours : bare route", rates["ours"], rates["bare"], at_least(0.25)))
    for name, values in told.items():
        found.figures.append(of_turns(f"settled and told/s of {OFFERED[name]}/s offered, {name}", values))
    found.figures.append(ratios("settled and told, ours : typical", told["ours"], told["typical"], at_least(6)))
    return found
