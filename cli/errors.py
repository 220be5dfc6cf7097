"""How a command says that it cannot start: in a line or two that name the variable, host, port or file.

It must print neither a traceback nor a password.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text
from sqlalchemy.engine import URL

from shared.config.settings import load_settings
from shared.errors import ConfigurationError, DatabaseUnavailable, SchemaOutdated

EXIT_CANNOT_START = 1
EXIT_WRONG_SETTINGS = 2
POSTGRES_PORT = 5432

errors = Console(stderr=True, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Print the errors that prevent a start in a line or two, without a traceback, and exit."""
    try:
        yield
    except ConfigurationError as error:
        errors.print("[red]The configuration is wrong:[/red]")
        for line in str(error).splitlines():
            errors.print(f"  {line}", markup=False)
        raise typer.Exit(EXIT_WRONG_SETTINGS) from None
    except (SchemaOutdated, DatabaseUnavailable) as error:
        reason = unavailable(error) if isinstance(error, DatabaseUnavailable) else str(error)
        errors.print(Text(reason, "red"))
        raise typer.Exit(EXIT_CANNOT_START) from None


def unavailable(error: Exception) -> str:
    """Return the sentence that says which database does not answer, and why."""
    return f"The database {database_place(load_settings().sqlalchemy_url)} does not answer: {error}"


def database_place(url: URL) -> str:
    """Return where a database is: the path of its file, or its host and port, and its name. It has no password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    host = url.host or url.query.get("host") or "localhost"
    return f"{url.database or ''} on {host}:{url.port or url.query.get('port') or POSTGRES_PORT}".strip()


def require_database_file(url: URL) -> None:
    """Raise SchemaOutdated if the database is an SQLite file that is not there: only a migration creates it."""
    if url.get_backend_name() != "sqlite" or str(url.database).startswith("file:"):
        return
    path = Path(str(url.database))
    folder = next((parent for parent in path.parents if parent.exists()), None)
    # A folder that cannot be there is reported by what opens the file.
    if not path.exists() and (folder is None or folder.is_dir()):
        raise SchemaOutdated(f"There is no database {path}. To create it, run `payments migrate` or `payments up`.")
