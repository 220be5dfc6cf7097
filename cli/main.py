"""The command line `payments`. The `--help` of each command documents it; settings come from the environment."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from typer.core import TyperGroup

from cli.keys import command as keys
from cli.tokens import mint
from shared.config.security import DEVELOPMENT_SECRET
from shared.config.settings import Settings, load_settings
from shared.errors import ConfigurationError, DatabaseUnavailable, SchemaOutdated
from shared.version import VERSION

HEALTH_TIMEOUT_S = 3.0
EXIT_WRONG_SETTINGS = 2

app = typer.Typer(
    name="payments",
    help="A simulated payment processor. Settings come from the environment: see docs/configuration.md.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True, highlight=False)


def _processes() -> ModuleType:
    """Import the API and the worker only for the commands that run them: the others start in half the time."""
    from cli import processes  # noqa: PLC0415

    return processes


def _require_checkout(command: str) -> None:
    """Exit with an explanation if this installation lacks the command. The images contain the service only."""
    if find_spec(f"cli.{command}") is None:
        errors.print(f"`payments {command}` is not part of this image. Run it from a checkout of the repository.")
        raise typer.Exit(EXIT_WRONG_SETTINGS)


@contextlib.contextmanager
def _report_errors() -> Iterator[None]:
    """Print the errors that prevent a start in a line or two, without a traceback, and exit."""
    try:
        yield
    except ConfigurationError as error:
        errors.print("[red]The configuration is wrong:[/red]")
        for line in str(error).splitlines():
            errors.print(f"  {line}", markup=False)
        raise typer.Exit(EXIT_WRONG_SETTINGS) from None
    except (SchemaOutdated, DatabaseUnavailable) as error:
        reason = f"The database does not answer: {error}" if isinstance(error, DatabaseUnavailable) else str(error)
        errors.print(reason, style="red", markup=False)
        raise typer.Exit(1) from None


class _Reporting(TyperGroup):
    """A group of commands whose errors are reported like those of the other commands."""

    def invoke(self, ctx: Any) -> Any:
        with _report_errors():
            return super().invoke(ctx)


app.add_typer(keys.app, name="keys", cls=_Reporting)


@app.command()
def up() -> None:
    """Run the API and a worker in one process. Without REDIS_URL, start a Valkey as well.

    Without DATABASE_URL the data is in SQLite under ./var, where it is kept between runs. The database is migrated
    first. Ctrl-C stops the process.
    """
    with _report_errors():
        _processes().run_up(_announce)


@app.command()
def api() -> None:
    """Run the API on HOST:PORT. It needs DATABASE_URL and REDIS_URL, and starts even if Redis does not answer."""
    with _report_errors():
        _processes().run_api()


@app.command()
def worker() -> None:
    """Run one worker. On PostgreSQL you can start as many workers as you like: they share the work."""
    with _report_errors():
        _processes().run_worker()


@app.command()
def migrate() -> None:
    """Migrate the database to the schema of this version. You can run this again, and several times at once."""
    with _report_errors():
        revision = _processes().run_migrate()
    print(f"The schema of the database is at revision {revision}.")


@app.command()
def token(
    user: Annotated[str, typer.Option(help="The id of the user, or the name of the service.")] = "1",
    role: Annotated[
        str | None,
        typer.Option(help="service, admin, payment_admin or super_admin. Without a role the token is a user's."),
    ] = None,
    hours: Annotated[float, typer.Option(min=0.01, max=24 * 365, help="How long the token is valid, in hours.")] = 12,
) -> None:
    """Print an access token for trying things out. It is signed with JWT_SECRET_KEY."""
    with _report_errors():
        print(mint(load_settings(), user=user, role=role, hours=hours))


@app.command()
def health(
    *,
    worker: Annotated[
        bool, typer.Option("--worker", help="Check the worker on METRICS_PORT instead of the API.")
    ] = False,
) -> None:
    """Check whether the API, or the worker, on this host is healthy. The exit code is 1 if it is not."""
    with _report_errors():
        settings = load_settings()
    port = settings.metrics_port if worker else settings.port
    if not port:
        errors.print("METRICS_PORT is 0, so the worker has no health endpoint. Set METRICS_PORT to a port.")
        raise typer.Exit(EXIT_WRONG_SETTINGS)
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104 - compared, not bound
    try:
        answer = httpx.get(f"http://{host}:{port}/health", timeout=HEALTH_TIMEOUT_S, trust_env=False)
        print(answer.text)
        raise typer.Exit(0 if answer.is_success else 1)
    except httpx.HTTPError as error:
        errors.print(f"No process answers on {host}:{port}: {error}", markup=False)
        raise typer.Exit(1) from None


@app.command()
def demo() -> None:
    """Start the service on free ports, show what it does with real requests and webhooks, and stop it."""
    _require_checkout("demo")
    from cli.demo.command import run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo())


@app.command()
def load(
    rate: Annotated[
        float | None,
        typer.Option(
            help="Payments per second. The default is 50, or with --workers the rate that keeps all slots busy."
        ),
    ] = None,
    duration: Annotated[float, typer.Option(help="The time in which payments arrive, in seconds.")] = 30,
    shape: Annotated[
        str, typer.Option(help="How arrivals are spread over the time: steady, ramp, burst or poisson.")
    ] = "steady",
    mix: Annotated[str, typer.Option(help="The weights of the payment methods.")] = "credit=6,debit=3,paypal=1",
    seed: Annotated[str, typer.Option(help="The same seed gives the same load.")] = "1",
    target: Annotated[
        str | None, typer.Option(help="The URL of a running deployment, such as http://127.0.0.1:8009.")
    ] = None,
    token: Annotated[
        str,
        typer.Option(
            envvar="PAYMENTS_TOKEN",
            help="The access token for the --target. Make it with `payments token --user load --role admin` and the "
            "target's JWT_SECRET_KEY. An admin's token shows the live figures; a service's or a user's does not.",
        ),
    ] = "",
    target_is_mine: Annotated[
        bool, typer.Option("--target-is-mine", help="Confirm that you may load a machine other than this one.")
    ] = False,
    workers: Annotated[
        str | None,
        typer.Option(help="Run the same load with each number of workers in turn, such as 1,2,4,8, on PostgreSQL."),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(help="How many payments one worker has in the gateway at once. The default with --workers is 50."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all results to this file, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the result in this file, as SVG.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Save the last picture of the terminal in this file, as SVG.")
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


@app.command()
def verify(
    json: Annotated[Path | None, typer.Option(help="Also write the report to this file, as JSON.")] = None,
    due_max: Annotated[
        float,
        typer.Option(
            min=0, help="How long a payment or a delivery may be due before it counts as a breach, in seconds."
        ),
    ] = 60,
    orders_since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%S%z"],
            help="The time since which all workers have had ORDER_SERVICE_URL, such as 2026-11-24T15:00:00Z. "
            "The default is one minute after the first order update.",
        ),
    ] = None,
    show: Annotated[
        int, typer.Option(min=1, max=10_000, help="How many breaches of each kind the report lists.")
    ] = 100,
) -> None:
    """Check every payment against its history, its events and deliveries, and the gateway's ledger.

    The command reads the database of DATABASE_URL while the service works, one range of payments at a time. It changes
    nothing. The report is stored: GET /api/v1/verify/last answers it. The exit code is 1 if there are breaches; the
    report lists their ids and what to do. The exit code is 2 if the command cannot run. See docs/verify.md.
    """
    from cli.verify.command import Options, run_verify  # noqa: PLC0415 - it imports the worker's part, too

    raise typer.Exit(run_verify(Options(json=json, due_max_s=due_max, orders_since=orders_since, shown_max=show)))


@app.command()
def version() -> None:
    """Print the version."""
    print(VERSION)


def _announce(settings: Settings) -> None:
    """Print the service's URL, a token and a request to paste. This is for people, so it goes to standard error.

    The standard error of a container is its log. So a token is shown only if it is signed with the public development
    secret, with which every reader of the log could make one.
    """
    url = f"http://{settings.host}:{settings.port}"
    is_public_secret = settings.jwt_secret_key.get_secret_value() == DEVELOPMENT_SECRET
    bearer = mint(settings, user="1", role=None, hours=12) if is_public_secret else "$(payments token --user 1)"
    out = Console(stderr=True, highlight=False, soft_wrap=True)
    out.print(f"\n[bold]Payment service {VERSION}[/bold] on [link={url}]{url}[/link]")
    out.print(f"docs: {url}/docs\n")
    if settings.environment == "development":
        out.print(f"TOKEN={bearer}\n", markup=False)
        out.print(
            f"""METHOD=$(curl -s {url}/api/v1/payment-methods -H "Authorization: Bearer $TOKEN" \\
  -H 'Content-Type: application/json' -d '{{"type": "CREDIT_CARD", "payment_details":
  {{"card_number": "4242424242424242", "exp_month": 12, "exp_year": 2030, "cvv": "123"}}}}' \\
  | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')

curl -i {url}/api/v1/payments -H "Authorization: Bearer $TOKEN" -H 'Prefer: wait=5' \\
  -H 'Content-Type: application/json' \\
  -d '{{"order_id": "'$RANDOM'", "amount": 1585, "payment_method_id": "'$METHOD'"}}'
""",
            markup=False,
        )
