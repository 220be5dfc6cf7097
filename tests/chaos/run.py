"""One run: load and faults side by side, healing, judgement."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from tests.chaos import database_faults, faults, message_faults, redis_faults
from tests.chaos.clients import Clients
from tests.chaos.installation import Installation, installed
from tests.chaos.judge import SHOWN_MAX, Judgement, judge
from tests.chaos.plan import Planned, planned_faults
from tests.support.pgbouncer import PROGRAM

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
        database_faults.rotate_password,
        database_faults.time_out_locks,
        database_faults.swallow_connections,
        # Without a PgBouncer on this machine there is nothing to restart; the run says so.
        *([database_faults.restart_pooler] if PROGRAM is not None else []),
        message_faults.double_messages,
        message_faults.delay_messages,
        message_faults.mislead_by_notifications,
        message_faults.upset_receiver,
        message_faults.upset_orders,
        redis_faults.fail_over,
        redis_faults.fill_valkey,
        redis_faults.swallow_redis,
    )
}
REFRESH_S = 0.5
# For answers to what was begun before the faults were healed.
ANSWERED_WITHIN_S = 60.0


@dataclass(slots=True)
class RunReport:
    """What a run has done and found."""

    seed: str
    seconds: float
    counts: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    retries: int = 0
    took: int = 0
    judgement: Judgement = field(default_factory=Judgement)

    def to_json(self) -> dict[str, Any]:
        """Return the report as it is written to a file."""
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "faults": dict(self.counts),
            "accepted": self.accepted,
            "retries": self.retries,
            "events_taken": self.took,
            "statuses": {str(status): count for status, count in self.judgement.statuses.items()},
            "refunds": {str(status): count for status, count in self.judgement.refunds.items()},
            "settled_s": round(self.judgement.settled_s, 1),
            "findings": self.judgement.findings,
        }


async def run(seed: str, *, seconds: float, rate: float, view: Console) -> RunReport:
    """Do what the seed says for `seconds`, at `rate` intents per second; the findings are in the report."""
    report = RunReport(seed, seconds)
    view.print(f"chaos: seed {seed}, {seconds:g} s, {rate:g} intents/s; the installation starts")
    if PROGRAM is None:
        view.print("There is no PgBouncer on this machine: nothing behind a pooler is broken.", style="red")
    async with installed() as installation:
        clients = Clients(installation, rate, seed)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(installation.watch())
            shown = group.create_task(_show(report, clients, view))
            paying = group.create_task(clients.run())
            await clients.equipped.wait()
            await _break(installation, report, view)
            clients.closing.set()
            view.print("all faults are healed; waiting for answers and for the end of every payment")
            _done, open_ = await asyncio.wait([paying], timeout=ANSWERED_WITHIN_S)
            if open_:
                installation.findings.append(f"clients had no answer within {ANSWERED_WITHIN_S:.0f} s")
                paying.cancel()
            report.judgement = await judge(installation, clients, view)
            watch.cancel()
            shown.cancel()
        report.accepted, report.retries = len(clients.accepted), clients.retries
        report.took = installation.receiver.taken.total()
    return report


async def _break(installation: Installation, report: RunReport, view: Console) -> None:
    """Every planned fault at its moment, beside those that still last; return when all have ended."""
    began_at = monotonic()

    async def meet(planned: Planned) -> None:
        view.print(f"{planned.at_s:6.1f} s  {planned.fault}  victim {planned.victim}, {planned.lasts_s:.1f} s")
        await FAULTS[planned.fault](installation, planned)
        report.counts[planned.fault] += 1

    async with asyncio.TaskGroup() as lasting:
        for planned in planned_faults(report.seed, list(FAULTS), seconds=report.seconds):
            await asyncio.sleep(began_at + planned.at_s - monotonic())
            lasting.create_task(meet(planned))
        await asyncio.sleep(began_at + report.seconds - monotonic())


async def _show(report: RunReport, clients: Clients, view: Console) -> None:
    columns = (TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=view, transient=True, disable=not view.is_terminal) as progress:
        line = progress.add_task("")
        while True:
            description = (
                f"{report.counts.total()} faults, {len(clients.journal)} intents, {len(clients.accepted)} accepted, "
                f"{clients.retries} retries, {clients.installation.receiver.taken.total()} events taken, "
                f"{len(clients.installation.findings)} findings"
            )
            progress.update(line, description=description)
            await asyncio.sleep(REFRESH_S)


def print_report(report: RunReport, view: Console) -> None:
    """Print the table of faults, the counts and the judgement."""
    for name in FAULTS:
        view.print(f"  {name:<18}{report.counts[name]:>5}")
    judgement = report.judgement
    view.print(
        f"{report.counts.total()} faults; {report.accepted} payments accepted after {report.retries} retries, "
        f"{_counted(judgement.statuses)}; refunds: {_counted(judgement.refunds) or 'none'}; "
        f"{report.took} events taken; settled {judgement.settled_s:.1f} s "
        "after the last fault"
    )
    for finding in judgement.findings[:SHOWN_MAX]:
        view.print(finding, style="red", markup=False)
    if len(judgement.findings) > SHOWN_MAX:
        view.print(f"... and {len(judgement.findings) - SHOWN_MAX} more")
    held = not judgement.findings
    view.print("it held" if held else f"it did not hold: seed {report.seed}", style="green" if held else "red")


def _counted(statuses: Counter[str]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
