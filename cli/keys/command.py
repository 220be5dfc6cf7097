"""The commands of `payments keys`. Errors that prevent a command are raised: `cli.main` reports them."""

import re
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from cli.options import PlainCommand, number
from cli.terminal import aligned

if TYPE_CHECKING:
    from shared.api_keys import ApiKey

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
DAYS_MAX = 3650
HEADINGS = ("id", "principal", "key", "created", "expires", "last used")
EXIT_NOT_DONE = 1

app = typer.Typer(
    help="Create, list and revoke API keys of services and admins.", no_args_is_help=True, rich_markup_mode="markdown"
)
messages = Console(stderr=True, highlight=False, soft_wrap=True)


def _store() -> ModuleType:
    """Import the database only for a command that uses it: the other commands of `payments` start faster."""
    from cli.keys import store  # noqa: PLC0415

    return store


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise typer.BadParameter("a name has 1 to 64 letters (A-Z, a-z), digits, dots, underscores and hyphens.")
    return name


@app.command(cls=PlainCommand)
def create(
    name: Annotated[
        str,
        typer.Option(metavar="NAME", callback=_checked_name, help="The service or the admin that uses the key."),
    ],
    role: Annotated[
        Literal["service", "admin"],
        typer.Option(metavar="ROLE", help="What the key may do: one of service, admin."),
    ] = "service",
    days: Annotated[
        float | None,
        typer.Option(
            parser=number(0.001, DAYS_MAX), metavar="DAYS", help="How long the key is valid. By default it has no end."
        ),
    ] = None,
) -> None:
    """Create an API key and print it. It is shown only this once.

    The command needs the DATABASE_URL and the DATA_KEY of the API. The API does not know a key that was made with
    another DATA_KEY.
    """
    from shared.api_keys import KeyRole  # noqa: PLC0415 - see `_store`

    key, created = _confirmed(lambda: _store().create_key(name, KeyRole(role), days))
    # Only the key goes to standard output, so that a shell can keep it: KEY=$(payments keys create --name orders).
    print(key)
    messages.print(f"Created the API key {created.id} of {created.principal}. It is not shown again.", markup=False)


@app.command("list", cls=PlainCommand)
def list_keys() -> None:
    """List the API keys that were not revoked, the newest first."""
    for line in aligned([HEADINGS, *map(_cells, _store().all_keys())]):
        print(line)


@app.command(cls=PlainCommand)
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the key, from `payments keys list`.")],
) -> None:
    """Revoke an API key for good. Within 10 seconds no API process accepts it any more."""
    revoked = _confirmed(lambda: _store().revoke(key_id))
    if revoked is None:
        messages.print("There is no such API key. `payments keys list` shows the ids.", style="red")
        raise typer.Exit(EXIT_NOT_DONE)
    messages.print(f"Revoked the API key {revoked.id} of {revoked.principal}.", markup=False)


def _confirmed[T](change: Callable[[], T]) -> T:
    """Return the result of `change`. If the answer to its commit was lost, exit and say how to find out."""
    from shared.errors import CommitUnknown  # noqa: PLC0415 - see `_store`

    try:
        return change()
    except CommitUnknown:
        messages.print(
            "The database did not confirm the change. `payments keys list` shows whether it was made.", style="red"
        )
        raise typer.Exit(EXIT_NOT_DONE) from None


def _cells(key: "ApiKey") -> tuple[str, ...]:
    shown = key.to_json()
    return (
        shown["id"],
        key.principal,
        f"{key.key_start}...",
        shown["created_at"],
        shown["expires_at"] or "never",
        shown["last_used_at"] or "never",
    )
