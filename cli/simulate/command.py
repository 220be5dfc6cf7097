"""The group `payments simulate`."""

from typing import Annotated

import typer

from cli.options import PlainGroup
from cli.simulate import clock, presets, rules
from cli.simulate.client import Service

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def simulate(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The URL of the service. The default is the one on this machine."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="PAYMENTS_TOKEN",
            metavar="TOKEN",
            help="The token or API key of an admin. Without it one is made with JWT_SECRET_KEY.",
        ),
    ] = None,
) -> None:
    """Decide what the simulated gateway does: by rules, by presets such as an outage, or by its clock.

    For example: `payments simulate outage --for 5m`. The service must have SIMULATION=on.
    """
    context.obj = Service(url, token)


app.add_typer(rules.app, name="rules", cls=PlainGroup)
app.add_typer(clock.app, name="clock", cls=PlainGroup)
presets.add_to(app)
