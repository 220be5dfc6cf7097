"""The command line `payments`. The `--help` of each command documents it; settings come from the environment."""

from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from cli.errors import EXIT_WRONG_SETTINGS, errors, report_errors
from cli.greeting import greet
from cli.health import check_health
from cli.keys import command as keys
from cli.options import PlainCommand, PlainGroup, Shape, moment, number, whole_number
from cli.simulate import command as simulate
from cli.tokens import TokenRole, mint
from shared.config.settings import load_settings
from shared.version import VERSION

app = typer.Typer(
    name="payments",
    cls=PlainGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _processes() -> ModuleType:
    """Import the API and the worker only for the commands that run them: the others start in half the time."""
    return import_module("cli.processes")


def _require_checkout(command: str) -> None:
    """Exit with an explanation if this installation lacks the command. The images contain the service only."""
    if find_spec(f"cli.{command}") is None:
        errors.print(f"`payments {command}` is not part of this image. Run it from a checkout of the repository.")
        raise typer.Exit(EXIT_WRONG_SETTINGS)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(VERSION)
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A simulated payment processor. Settings come from the environment: see docs/configuration.md."""


class _ReportingGroup(PlainGroup):
    """A group of commands whose errors are reported like those of the other commands."""

    def invoke(self, ctx: Any) -> Any:
        with report_errors():
            return super().invoke(ctx)


app.add_typer(keys.app, name="keys", cls=_ReportingGroup)
app.add_typer(simulate.app, name="simulate", cls=_ReportingGroup)


@app.command(cls=PlainCommand)
def up() -> None:
    """Run the API and a worker in one process. Without REDIS_URL, start a Valkey as well.

    Without DATABASE_URL the data is in SQLite under ./var, where it is kept between runs. The database is migrated
    first. Ctrl-C stops the process.
    """
    with report_errors():
        _processes().run_up(greet)


@app.command(cls=PlainCommand)
def api() -> None:
    """Run the API on HOST:PORT. It needs DATABASE_URL and REDIS_URL, and starts even if Redis does not answer."""
    with report_errors():
        _processes().run_api()


@app.command(cls=PlainCommand)
def worker() -> None:
    """Run one worker. On PostgreSQL you can start as many workers as you like: they share the work."""
    with report_errors():
        _processes().run_worker()


@app.command(cls=PlainCommand)
def migrate() -> None:
    """Migrate the database to the schema of this version. You can run this again, and several times at once."""
    with report_errors():
        revision, is_known = _processes().run_migrate()
    note = "" if is_known else " That is newer than this code, and still serves it: there is nothing to do."
    print(f"The schema of the database is at revision {revision}.{note}")


@app.command(cls=PlainCommand)
def token(
    user: Annotated[str, typer.Option(metavar="ID", help="The id of the user, or the name of the service.")] = "1",
    role: Annotated[
        TokenRole | None,
        typer.Option(metavar="ROLE", help=f"One of {', '.join(TokenRole)}. Without it the token is a user's."),
    ] = None,
    hours: Annotated[
        float, typer.Option(parser=number(0.01, 8760), metavar="HOURS", help="How long the token is valid.")
    ] = 12,
) -> None:
    """Print an access token for trying things out. It is signed with JWT_SECRET_KEY."""
    with report_errors():
        print(mint(load_settings(), user=user, role=role, hours=hours))


@app.command(cls=PlainCommand)
def health(
    *,
    worker: Annotated[
        bool, typer.Option("--worker", help="Check the worker on METRICS_PORT instead of the API.")
    ] = False,
) -> None:
    """Check whether the API, or the worker, on this host is healthy. The exit code is 1 if it is not."""
    with report_errors():
        check_health(load_settings(), of_worker=worker)


@app.command(cls=PlainCommand)
def demo(
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the last screen of the terminal in this file, as SVG.")
    ] = None,
) -> None:
    """Start the service on free ports, show what it does with real requests and webhooks, and stop it."""
    _require_checkout("demo")
    from cli.demo.command import run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo(picture))


@app.command(cls=PlainCommand)
def load(
    rate: Annotated[
        float | None,
        typer.Option(
            parser=number(0),
            metavar="NUMBER",
            help="Payments per second. The default is 50, or with --workers the rate that keeps all slots busy.",
        ),
    ] = None,
    duration: Annotated[
        float, typer.Option(parser=number(0), metavar="SECONDS", help="The time in which payments arrive.")
    ] = 30,
    shape: Annotated[
        Shape,
        typer.Option(metavar="SHAPE", help=f"How arrivals are spread over the time: one of {', '.join(Shape)}."),
    ] = Shape.STEADY,
    mix: Annotated[
        str, typer.Option(metavar="WEIGHTS", help="The weights of the payment methods.")
    ] = "credit=6,debit=3,paypal=1",
    captures: Annotated[
        float, typer.Option(parser=number(0), metavar="SHARE", help="The share that is authorized, and captured later.")
    ] = 0,
    refunds: Annotated[
        float, typer.Option(parser=number(0), metavar="SHARE", help="The share that is refunded, such as 0.1.")
    ] = 0,
    seed: Annotated[str, typer.Option(metavar="TEXT", help="The same seed gives the same load.")] = "1",
    target: Annotated[
        str | None, typer.Option(metavar="URL", help="The URL of a running deployment, such as http://127.0.0.1:8009.")
    ] = None,
    token: Annotated[
        str,
        typer.Option(
            envvar="PAYMENTS_TOKEN",
            metavar="TOKEN",
            help="The access token for the --target. Make it with `payments token --user load --role admin` and the "
            "target's JWT_SECRET_KEY. An admin's token shows the live figures; a service's or a user's does not.",
        ),
    ] = "",
    target_is_mine: Annotated[
        bool, typer.Option("--target-is-mine", help="Confirm that you may load a machine other than this one.")
    ] = False,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Run the same load with each number of workers in turn, such as 1,2,4,8, on PostgreSQL.",
        ),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(0),
            metavar="NUMBER",
            help="How many payments one worker has in the gateway at once. The default with --workers is 50.",
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all results to this file, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the result in this file, as SVG.")] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the last picture of the terminal in this file, as SVG.")
    ] = None,
) -> None:
    """Send a service as many payments as you like, show live what it does with them, and check the result.

    Without --target the command starts a service in a temporary folder. A slow server does not slow the arrivals down.
    The exit code is 1 if a payment was lost or charged twice. Ctrl-C ends the arrivals. See docs/load.md.
    """
    _require_checkout("load")
    from cli.load.command import Options, run_load  # noqa: PLC0415

    options = Options(
        rate=rate,
        duration_s=duration,
        shape=shape,
        mix=mix,
        captures=captures,
        refunds=refunds,
        seed=seed,
        target=target,
        token=token,
        target_is_mine=target_is_mine,
        workers=workers,
        slots=slots,
        json=json,
        plot=plot,
        picture=picture,
    )
    raise typer.Exit(run_load(options))


@app.command(cls=PlainCommand)
def verify(
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the report to this file, as JSON.")
    ] = None,
    due_max: Annotated[
        float,
        typer.Option(
            parser=number(0),
            metavar="SECONDS",
            help="How long a payment or a delivery may be due, or wait for its first claim, before it counts as a "
            "breach.",
        ),
    ] = 60,
    orders_since: Annotated[
        datetime | None,
        typer.Option(
            parser=moment,
            metavar="TIME",
            help="The time since which all workers have had ORDER_SERVICE_URL, such as 2026-11-24T15:00:00Z. "
            "The default is one minute after the first order update.",
        ),
    ] = None,
    show: Annotated[
        int,
        typer.Option(
            parser=whole_number(1, 10_000),
            metavar="NUMBER",
            help="How many breaches of each kind the report lists.",
        ),
    ] = 100,
) -> None:
    """Check every payment against its history, its events and deliveries, and the gateway's ledger.

    The command reads the database of DATABASE_URL while the service works, one range of payments at a time. It changes
    nothing but its stored report, which GET /api/v1/verify/last answers. The exit code is 1 if there are breaches; the
    report lists their ids and what to do. The exit code is 2 if the command cannot run. See docs/verify.md.
    """
    from cli.verify.command import Options, run_verify  # noqa: PLC0415 - it imports the statements, too

    raise typer.Exit(run_verify(Options(json=json, due_max_s=due_max, orders_since=orders_since, shown_max=show)))


@app.command(cls=PlainCommand)
def explain(
    payment_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the payment.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")] = False,
) -> None:
    """Explain a payment: what decided its outcome, where its time went, and how to get the same outcome again.

    The command reads the database of DATABASE_URL and changes nothing. It shows what an admin sees. Give it the
    settings of the workers: SIMULATOR_SEED, PAYMENT_SUCCESS_RATE and the delays. See docs/simulator.md.
    """
    from cli.explain import run_explain  # noqa: PLC0415 - it imports the database

    with report_errors():
        raise typer.Exit(run_explain(payment_id, as_json=json, messages=errors))


@app.command(cls=PlainCommand)
def version() -> None:
    """Print the version."""
    print(VERSION)
