"""`payments simulate clock`: show service time, and advance it."""

from typing import Annotated, Any

import typer

from cli.options import PlainCommand
from cli.simulate.client import service_of
from cli.simulate.durations import in_words, seconds_of

app = typer.Typer(
    help="Show the time of the service, and advance it.", no_args_is_help=True, rich_markup_mode="markdown"
)


@app.command(cls=PlainCommand)
def show(context: typer.Context) -> None:
    """Show service time, its speed, and by how much it is ahead of real time."""
    _print_clock(service_of(context).ask("GET", "/simulation/clock"))


@app.command(cls=PlainCommand)
def advance(
    context: typer.Context,
    duration: Annotated[
        int,
        typer.Argument(parser=seconds_of, metavar="DURATION", help="How far, such as 90 (seconds), 15m, 36h or 4d."),
    ],
) -> None:
    """Advance service time: retries, webhooks and expiries that fall into it happen in their order.

    The command waits until all that was due is done. Ctrl-C ends the waiting, not the advance. Service time never goes
    back.
    """
    service = service_of(context)
    answer = service.ask("POST", "/simulation/clock/advance", json={"seconds": duration})
    while not answer["is_idle"]:
        print(f"It is {answer['now']}; {answer['became_due']} due so far, {answer['ended']} of them ended ...")
        answer = service.ask("POST", "/simulation/clock/advance", json={"seconds": 0})
    print(f"It is {answer['now']}, {in_words(answer['offset_s'])} ahead of real time.")
    print(f"Due on the way: {answer['became_due']}. Ended by that: {answer['ended']}.")


def _print_clock(clock: dict[str, Any]) -> None:
    print(f"Service time  {clock['now']}")
    print(f"Real time     {clock['real_now']}")
    print(f"Ahead by      {in_words(clock['offset_s'])}")
    print(f"Speed         {clock['speed']:g}")
    if clock["advances_to"]:
        print(f"Advances to   {clock['advances_to']}")
