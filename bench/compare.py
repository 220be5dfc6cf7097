"""Compares the service with the usual design and with the bare route, in turns, each turn on new servers."""

from bench.figures import Found, at_least, below, of_turns, percentiles_ms, ratios
from bench.flows import accepted, delivered_per_s, flow, other_answers, plan
from bench.progress import print_step
from bench.stack import bare_route, production, run_load, typical

TURNS = 3
WARM_S = 3
# Intents per second: more than each of the two settles, and few enough not to overload it.
OFFERED = {"ours": 900, "typical": 250}


def versus(seconds: int) -> Found:
    """Measure how many payments each design accepts at 100 connections, and how many webhooks it delivers."""
    rates: dict[str, list[float]] = {"ours": [], "typical": [], "bare": []}
    slowest: dict[str, list[float]] = {"ours": [], "typical": [], "bare": []}
    generator: list[float] = []
    delivered: dict[str, list[float]] = {"ours": [], "typical": []}
    errors = 0
    for turn in range(1, TURNS + 1):
        for name, start in (("ours", production), ("typical", typical), ("bare", bare_route)):
            print_step(f"turn {turn} of {TURNS}: {name} accepts")
            with start() as stack:
                run_load(stack, plan(stack, "warm", WARM_S))
                result = run_load(stack, plan(stack, "accept", seconds))
            rates[name].append(accepted(result) / result["took_s"])
            slowest[name].append(percentiles_ms(result["latencies_s"])[99])
            generator.append(result["cpu_share"])
            errors += other_answers(result) if name == "ours" else 0
            if name in delivered:
                print_step(f"turn {turn} of {TURNS}: {name} from the intent to the webhook")
                with start() as stack:
                    stack.register_receiver()
                    _, received, began, ended = flow(stack, seconds, OFFERED[name])
                delivered[name].append(delivered_per_s(received, began, ended))
    found = Found()
    for name, values in rates.items():
        found.figures.append(of_turns(f"accepted/s at 100 connections, {name}", values))
        found.figures.append(of_turns("  p99", slowest[name], "ms", goal=below(200) if name == "ours" else None))
    found.add("  other answers than 202, ours", errors, goal=below(1))
    found.add("  cores used by the generator, at most", max(generator), digits=2)
    found.figures.append(ratios("accepted, ours : typical", rates["ours"], rates["typical"], at_least(4)))
    found.figures.append(ratios("accepted, ours : bare route", rates["ours"], rates["bare"], at_least(0.25)))
    for name, values in delivered.items():
        found.figures.append(of_turns(f"settled and delivered/s of {OFFERED[name]}/s offered, {name}", values))
    found.figures.append(
        ratios("settled and delivered, ours : typical", delivered["ours"], delivered["typical"], at_least(6))
    )
    return found
