"""The commands of `payments simulate`. Errors that prevent a command are raised: `cli.main` reports them."""

import typer

from cli.options import PlainGroup
from cli.simulate import clock

app = typer.Typer(
    help="Steer the simulation of a running service: its clock.", no_args_is_help=True, rich_markup_mode="markdown"
)
app.add_typer(clock.app, name="clock", cls=PlainGroup)
