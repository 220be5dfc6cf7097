"""`payments`: the operator's commands. Each says what it does under --help; configuration is the environment's."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Annotated

import httpx
import typer
from rich.console import Console

from cli.tokens import mint
from shared.config import DEVELOPMENT_SECRET, Settings, load_settings
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
    """API and worker, imported by those commands only that run them: the others answer in half the time."""
    from cli import processes  # noqa: PLC0415

    return processes


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What stops a start is said in a line or two, without a traceback."""
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


@app.command()
def up() -> None:
    """Run everything in one process: API, worker and, without REDIS_URL, a Valkey of its own.

    Without DATABASE_URL the data is in SQLite under ./var, and kept between runs. Migrates by itself. Ctrl-C stops it.
    """
    with _explained():
        _processes().run_up(_announce)


@app.command()
def api() -> None:
    """Run the API on HOST:PORT. Needs DATABASE_URL and REDIS_URL; starts while Redis is away."""
    with _explained():
        _processes().run_api()


@app.command()
def worker() -> None:
    """Run one worker. Start as many as you like on PostgreSQL: they share the work."""
    with _explained():
        _processes().run_worker()


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema. Safe to run several times, and at once."""
    with _explained():
        revision = _processes().run_migrate()
    print(f"The database is at {revision}.")


@app.command()
def token(
    user: Annotated[str, typer.Option(help="The user id, or the name of a service.")] = "1",
    role: Annotated[
        str | None, typer.Option(help="service, admin, payment_admin or super_admin; none = a user.")
    ] = None,
    hours: Annotated[float, typer.Option(min=0.01, max=24 * 365, help="How long it is valid.")] = 12,
) -> None:
    """Print a token that JWT_SECRET_KEY signs, for trying things out."""
    with _explained():
        print(mint(load_settings(), user=user, role=role, hours=hours))


@app.command()
def health(
    *, worker: Annotated[bool, typer.Option("--worker", help="Ask the worker on METRICS_PORT, not the API.")] = False
) -> None:
    """Ask the API (or the worker) on this host whether it is healthy; exit code 1 if not."""
    with _explained():
        settings = load_settings()
    port = settings.metrics_port if worker else settings.port
    if not port:
        errors.print("METRICS_PORT is 0: the worker serves no health")
        raise typer.Exit(EXIT_WRONG_SETTINGS)
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104 - compared, not bound
    try:
        answer = httpx.get(f"http://{host}:{port}/health", timeout=HEALTH_TIMEOUT_S, trust_env=False)
        print(answer.text)
        raise typer.Exit(0 if answer.is_success else 1)
    except httpx.HTTPError as error:
        errors.print(f"nobody answers on {host}:{port}: {error}", markup=False)
        raise typer.Exit(1) from None


@app.command()
def demo() -> None:
    """Start the service on free ports, show what it does with real requests and webhooks, and stop it again."""
    from cli.demo import run_demo  # noqa: PLC0415 - it needs packages that a production image has not

    raise typer.Exit(run_demo())


@app.command()
def load(
    rate: Annotated[
        float | None, typer.Option(help="Payments per second. Default 50; with --workers, what keeps all slots busy.")
    ] = None,
    duration: Annotated[float, typer.Option(help="For how long they arrive, s.")] = 30,
    shape: Annotated[str, typer.Option(help="steady, ramp, burst or poisson.")] = "steady",
    mix: Annotated[str, typer.Option(help="Weights of the methods.")] = "credit=6,debit=3,paypal=1",
    seed: Annotated[str, typer.Option(help="The same seed makes the same load.")] = "1",
    target: Annotated[str | None, typer.Option(help="A running deployment, such as http://127.0.0.1:8009.")] = None,
    token: Annotated[
        str,
        typer.Option(
            envvar="PAYMENTS_TOKEN",
            help="Who pays at the --target: `payments token --user load --role admin`, with its JWT_SECRET_KEY. "
            "An admin's shows the live figures; a service's or a user's pays without them.",
        ),
    ] = "",
    target_is_mine: Annotated[
        bool, typer.Option("--target-is-mine", help="Needed to load another machine than this one.")
    ] = False,
    workers: Annotated[
        str | None, typer.Option(help="The same load with so many workers in turn, such as 1,2,4,8, on PostgreSQL.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(help="Payments that one worker has in the gateway at once. Default 50 with --workers.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything there as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it, as SVG.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Save what the terminal showed last, as SVG.")] = None,
) -> None:
    """Bring a service as many payments as you like, show live what it does with them, and judge it.

    Without --target it starts a service of its own in a temporary folder. Arrivals do not slow down with the server.
    Exit code 1: a payment was lost, or charged twice. Ctrl-C ends the arrivals. More in docs/load.md.
    """
    from cli.load import Options, run_load  # noqa: PLC0415 - as for the demo

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
    json: Annotated[Path | None, typer.Option(help="Write the report there as JSON, too.")] = None,
    due_max: Annotated[
        float, typer.Option(min=0, help="How long something may be due before that is a breach, s.")
    ] = 60,
    orders_since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%S%z"],
            help="Since when all workers have ORDER_SERVICE_URL, such as 2026-11-24T15:00:00Z. "
            "Default: since a minute after the first order update.",
        ),
    ] = None,
    show: Annotated[int, typer.Option(min=1, max=10_000, help="How many breaches of a kind the report lists.")] = 100,
) -> None:
    """Check every payment against its history, its events and deliveries, and the gateway's ledger.

    Reads DATABASE_URL while the service is at work, a range of payments at a time, and changes nothing. The report is
    stored: GET /api/v1/verify/last. Exit code 1: there are breaches, listed with ids and what to do. 2: it cannot
    run. More in docs/verify.md.
    """
    from cli.verify import Options, run_verify  # noqa: PLC0415 - it imports the worker's part, too

    raise typer.Exit(run_verify(Options(json=json, due_max_s=due_max, orders_since=orders_since, shown_max=show)))


@app.command()
def version() -> None:
    """Print the version."""
    print(VERSION)


def _announce(settings: Settings) -> None:
    """Where it is, a token, and a request to paste. For people, so it goes to standard error, beside the logs.

    A container's standard error is its log, so a token is only shown if anybody could have made it.
    """
    where = f"http://{settings.host}:{settings.port}"
    is_anybodys = settings.jwt_secret_key.get_secret_value() == DEVELOPMENT_SECRET
    bearer = mint(settings, user="1", role=None, hours=12) if is_anybodys else "$(payments token --user 1)"
    out = Console(stderr=True, highlight=False, soft_wrap=True)
    out.print(f"\n[bold]Payment service {VERSION}[/bold] on [link={where}]{where}[/link]")
    out.print(f"docs: {where}/docs\n")
    if settings.environment == "development":
        out.print(f"TOKEN={bearer}\n", markup=False)
        out.print(
            f"""METHOD=$(curl -s {where}/api/v1/payment-methods -H "Authorization: Bearer $TOKEN" \\
  -H 'Content-Type: application/json' -d '{{"type": "CREDIT_CARD", "payment_details":
  {{"card_number": "4242424242424242", "exp_month": 12, "exp_year": 2030, "cvv": "123"}}}}' \\
  | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')

curl -i {where}/api/v1/payments -H "Authorization: Bearer $TOKEN" -H 'Prefer: wait=5' \\
  -H 'Content-Type: application/json' \\
  -d '{{"order_id": "'$RANDOM'", "amount": 1585, "payment_method_id": "'$METHOD'"}}'
""",
            markup=False,
        )
