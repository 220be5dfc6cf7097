"""`payments simulate clock`: show service time, and advance it."""

from typing import Annotated, Any

import typer

from cli.options import PlainCommand
from cli.simulate.client import SimulationClient
from cli.simulate.durations import in_words, seconds_of

type Url = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Where the API is. The default is the API on this machine, on HOST:PORT."),
]
type Token = Annotated[
    str | None,
    typer.Option(
        envvar="PAYMENTS_TOKEN",
        metavar="TOKEN",
        help="An admin's token or API key. Without it the command makes one with JWT_SECRET_KEY.",
    ),
]

app = typer.Typer(
    help="Show the time of the service, and advance it.", no_args_is_help=True, rich_markup_mode="markdown"
)


@app.command(cls=PlainCommand)
def show(url: Url = None, token: Token = None) -> None:
    """Show service time, its speed, and by how much it is ahead of real time."""
    _print_clock(SimulationClient(url, token).ask("GET", "/clock"))


@app.command(cls=PlainCommand)
def advance(
    duration: Annotated[
        int,
        typer.Argument(parser=seconds_of, metavar="DURATION", help="How far, such as 90 (seconds), 15m, 36h or 4d."),
    ],
    url: Url = None,
    token: Token = None,
) -> None:
    """Advance service time: retries, webhooks and expiries that fall into it happen in their order.

    The command waits until all that was due is done. Ctrl-C ends the waiting, not the advance. Service time never goes
    back.
    """
    client = SimulationClient(url, token)
    answer = client.ask("POST", "/clock/advance", {"seconds": duration})
    while not answer["is_idle"]:
        print(f"It is {answer['now']}; {answer['became_due']} due so far, {answer['ended']} of them ended ...")
        answer = client.ask("POST", "/clock/advance", {"seconds": 0})
    print(f"It is {answer['now']}, {in_words(answer['offset_s'])} ahead of real time.")
    print(f"Due on the way: {answer['became_due']}. Ended by that: {answer['ended']}.")


def _print_clock(clock: dict[str, Any]) -> None:
    print(f"Service time  {clock['now']}")
    print(f"Real time     {clock['real_now']}")
    print(f"Ahead by      {in_words(clock['offset_s'])}")
    print(f"Speed         {clock['speed']:g}")
    if clock["advances_to"]:
        print(f"Advances to   {clock['advances_to']}")
