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

from shared.config.settings import Settings, load_settings
from shared.errors import (
    CommitUnknown,
    ConfigurationError,
    DatabaseRefused,
    DatabaseUnavailable,
    PaymentsError,
    SchemaOutdated,
    StatementFailed,
)

EXIT_CANNOT_START = 1
EXIT_WRONG_SETTINGS = 2

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
    except (SchemaOutdated, DatabaseUnavailable, CommitUnknown) as error:
        errors.print(Text(_reason_of(error), "red"))
        raise typer.Exit(EXIT_CANNOT_START) from None


@contextlib.contextmanager
def refusal_names_the_setting(settings: Settings) -> Iterator[None]:
    """Raise ConfigurationError if the database refuses: a password, a name, a privilege or a file."""
    try:
        yield
    except DatabaseRefused as error:
        raise ConfigurationError(f"DATABASE_URL: {settings.database_name} cannot be used: {error}") from error


def unavailable(error: Exception) -> str:
    """Return the sentence that says which database does not answer, and why."""
    return f"The database {load_settings().database_name} does not answer: {error}"


def _reason_of(error: PaymentsError) -> str:
    match error:
        case StatementFailed():
            return f"The database refused a statement ({error}). The log says which."
        case DatabaseUnavailable():
            return unavailable(error)
        case CommitUnknown():
            return f"The database did not answer to COMMIT ({error}). Run the command again."
        case _:
            return str(error)


def require_database_file(url: URL) -> None:
    """Raise SchemaOutdated if the database is an SQLite file that is not there: only a migration creates it."""
    if url.get_backend_name() != "sqlite" or str(url.database).startswith("file:"):
        return
    path = Path(str(url.database))
    folder = next((parent for parent in path.parents if parent.exists()), None)
    # A folder that cannot be there is reported by what opens the file.
    if not path.exists() and (folder is None or folder.is_dir()):
        raise SchemaOutdated(f"There is no database {path}. To create it, run `payments migrate` or `payments up`.")
