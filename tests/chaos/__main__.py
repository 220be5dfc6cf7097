"""`python -m tests.chaos --seconds 120 --seed 7`: exit code 0 if everything held, 1 if not, 130 after Ctrl-C."""

import asyncio
import os
import signal
from pathlib import Path
from random import SystemRandom
from typing import Annotated

import orjson
import typer
from rich.console import Console

from shared.config.settings import Settings
from tests.chaos.run import RunReport, print_report, run

INTERRUPTED = 130


def main(
    seconds: Annotated[float, typer.Option(min=5, max=3600, help="How long things are broken.")] = 60,
    seed: Annotated[
        str | None, typer.Option(help="Decides every fault; without it a new one, which is printed.")
    ] = None,
    rate: Annotated[float, typer.Option(min=1, max=200, help="Intents per second.")] = 20,
    json: Annotated[Path | None, typer.Option(help="Write the report there.")] = None,
) -> None:
    """Break a service that is under load in every way we know, and judge it by its clients' journal."""
    # The shell does not decide what is tested.
    for name in list(os.environ):
        if name.lower() in Settings.model_fields or name.startswith("PG"):
            del os.environ[name]
    view = Console(highlight=False, soft_wrap=True)
    try:
        report = asyncio.run(_until_signalled(seed or str(SystemRandom().randrange(10**6)), seconds, rate, view))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(INTERRUPTED) from None
    print_report(report, view)
    if json is not None:
        json.write_bytes(orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2))
    raise typer.Exit(1 if report.judgement.findings else 0)


async def _until_signalled(seed: str, seconds: float, rate: float, view: Console) -> RunReport:
    """Run; SIGTERM ends it like Ctrl-C, and nothing of the installation is left."""
    running = asyncio.ensure_future(run(seed, seconds=seconds, rate=rate, view=view))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    return await running


if __name__ == "__main__":
    typer.run(main)
