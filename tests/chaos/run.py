"""One run: load and faults side by side, healing, judgement."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from tests.chaos import database_faults, faults, message_faults
from tests.chaos.clients import Clients
from tests.chaos.judge import SHOWN_MAX, Verdict, judge
from tests.chaos.plan import Planned, drawn
from tests.chaos.stage import Stage, staged

FAULTS: dict[str, faults.Fault] = {
    fault.__name__: fault
    for fault in (
        faults.kill_api,
        faults.kill_worker,
        faults.pause_api,
        faults.pause_worker,
        faults.replace_worker,
        faults.kill_valkey,
        faults.pause_valkey,
        faults.flush_valkey,
        database_faults.restart_postgres,
        database_faults.cut_connections,
        database_faults.slow_commits,
        database_faults.lock_table,
        database_faults.fill_connections,
        message_faults.double_messages,
        message_faults.delay_messages,
        message_faults.upset_receiver,
        message_faults.upset_orders,
    )
}
REFRESH_S = 0.5
ANSWERED_WITHIN_S = 60.0  # what was begun before the faults were healed


@dataclass(slots=True)
class Outcome:
    """What a run has done and found."""

    seed: str
    seconds: float
    counts: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    retries: int = 0
    took: int = 0
    verdict: Verdict = field(default_factory=Verdict)

    def document(self) -> dict[str, Any]:
        """For a file."""
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "faults": dict(self.counts),
            "accepted": self.accepted,
            "retries": self.retries,
            "events_taken": self.took,
            "statuses": {str(status): count for status, count in self.verdict.statuses.items()},
            "settled_s": round(self.verdict.settled_s, 1),
            "findings": self.verdict.findings,
        }


async def run(seed: str, *, seconds: float, rate: float, view: Console) -> Outcome:
    """Do what the seed says for `seconds`, at `rate` intents per second; the findings are in the outcome."""
    outcome = Outcome(seed, seconds)
    view.print(f"chaos: seed {seed}, {seconds:g} s, {rate:g} intents/s; the stage is being set")
    async with staged() as stage:
        clients = Clients(stage, rate, seed)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(stage.watch())
            shown = group.create_task(_show(outcome, clients, view))
            paying = group.create_task(clients.run())
            await clients.equipped.wait()
            await _break(stage, outcome, view)
            clients.closing.set()
            view.print("all faults are healed; waiting for answers and for the end of every payment")
            _done, open_ = await asyncio.wait([paying], timeout=ANSWERED_WITHIN_S)
            if open_:
                stage.findings.append(f"clients had no answer within {ANSWERED_WITHIN_S:.0f} s")
                paying.cancel()
            outcome.verdict = await judge(stage, clients, view)
            watch.cancel()
            shown.cancel()
        outcome.accepted, outcome.retries = len(clients.accepted), clients.retries
        outcome.took = stage.receiver.taken.total()
    return outcome


async def _break(stage: Stage, outcome: Outcome, view: Console) -> None:
    """Every planned fault at its moment, beside those that still last; return when all have ended."""
    began_at = monotonic()

    async def meet(planned: Planned) -> None:
        view.print(f"{planned.at_s:6.1f} s  {planned.fault}  victim {planned.victim}, {planned.lasts_s:.1f} s")
        await FAULTS[planned.fault](stage, planned)
        outcome.counts[planned.fault] += 1

    async with asyncio.TaskGroup() as lasting:
        for planned in drawn(outcome.seed, list(FAULTS), seconds=outcome.seconds):
            await asyncio.sleep(began_at + planned.at_s - monotonic())
            lasting.create_task(meet(planned))
        await asyncio.sleep(began_at + outcome.seconds - monotonic())


async def _show(outcome: Outcome, clients: Clients, view: Console) -> None:
    columns = (TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=view, transient=True, disable=not view.is_terminal) as progress:
        line = progress.add_task("")
        while True:
            description = (
                f"{outcome.counts.total()} faults, {len(clients.journal)} intents, {len(clients.accepted)} accepted, "
                f"{clients.retries} retries, {clients.stage.receiver.taken.total()} events taken, "
                f"{len(clients.stage.findings)} findings"
            )
            progress.update(line, description=description)
            await asyncio.sleep(REFRESH_S)


def say(outcome: Outcome, view: Console) -> None:
    """The table of faults, the counts and the verdict."""
    for name in FAULTS:
        view.print(f"  {name:<18}{outcome.counts[name]:>5}")
    verdict = outcome.verdict
    view.print(
        f"{outcome.counts.total()} faults; {outcome.accepted} payments accepted after {outcome.retries} retries, "
        f"{_counted(verdict.statuses)}; {outcome.took} events taken; settled {verdict.settled_s:.1f} s "
        "after the last fault"
    )
    for finding in verdict.findings[:SHOWN_MAX]:
        view.print(finding, style="red", markup=False)
    if len(verdict.findings) > SHOWN_MAX:
        view.print(f"... and {len(verdict.findings) - SHOWN_MAX} more")
    held = not verdict.findings
    view.print("it held" if held else f"it did not hold: seed {outcome.seed}", style="green" if held else "red")


def _counted(statuses: Counter[str]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
