"""`payments verify`: checks every payment against the tables and the gateway's ledger, and reports what disagrees.

It must repair nothing, and write nothing but its report.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from cli.errors import refusal_names_the_setting, require_database_file, unavailable
from cli.verify.lines import lines
from shared.config.settings import Settings, load_settings
from shared.database.engine import Database, open_database
from shared.database.migrations import require_current
from shared.errors import CommitUnknown, ConfigurationError, DatabaseUnavailable, SchemaOutdated
from shared.verify.scan import SHOWN_MAX, Found, Scan
from shared.verify.verifier import DUE_MAX_S, STATEMENT_S, verify_installation

EXIT_BROKEN = 1
EXIT_CANNOT_RUN = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command line."""

    json: Path | None = None
    due_max_s: float = DUE_MAX_S
    # None means a minute after the first order update.
    orders_since: datetime | None = None
    shown_max: int = SHOWN_MAX


def run_verify(options: Options, console: Console | None = None) -> int:
    """Run the command and return its exit code.

    The code is 0 if there is no breach, 1 if there is one, 2 if the command cannot run, and 130 if it was interrupted.
    """
    view = console or Console(highlight=False)
    try:
        settings = load_settings()
        _check_file(options.json)
        require_database_file(settings.sqlalchemy_url)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(_run(settings, options, view))
    except ConfigurationError as error:
        for line in str(error).splitlines():
            _print_line(view, line, "red")
    except (DatabaseUnavailable, CommitUnknown) as error:
        _print_line(view, unavailable(error), "red")
    except (SchemaOutdated, OSError) as error:
        _print_line(view, str(error), "red")
    except KeyboardInterrupt:
        _print_line(view, "Interrupted. There is no report.")
        return EXIT_INTERRUPTED
    else:
        return 0 if found.is_sound else EXIT_BROKEN
    return EXIT_CANNOT_RUN


def _check_file(path: Path | None) -> None:
    """Raise ConfigurationError if the report cannot be written to this file: a scan may take minutes."""
    if path is not None and not path.parent.is_dir():
        raise ConfigurationError(f"--json {path}: there is no folder {path.parent}. Create it first.")


async def _run(settings: Settings, options: Options, view: Console) -> Found:
    database = open_database(settings, statement_s=STATEMENT_S)
    try:
        with refusal_names_the_setting(settings):
            await require_current(database)
            return await _verify(database, settings, options, view)
    finally:
        await database.dispose()


async def _verify(database: Database, settings: Settings, options: Options, view: Console) -> Found:
    async with _scanning(database, options, view) as scan:
        done = await verify_installation(scan, settings, due_max_s=options.due_max_s, orders_since=options.orders_since)
    for line, style in lines(done.found, took_s=(done.finished_at - done.started_at).total_seconds()):
        _print_line(view, line, style)
    if options.json is not None:
        options.json.write_bytes(orjson.dumps(done.report, option=orjson.OPT_INDENT_2))
    await done.keep(database)
    return done.found


@asynccontextmanager
async def _scanning(database: Database, options: Options, view: Console) -> AsyncIterator[Scan]:
    """Provide a scan that moves a progress bar on a terminal."""
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=view, transient=True, disable=not view.is_terminal) as progress:
        bar = progress.add_task("verifying", total=None)
        scan = Scan(database, Found(options.shown_max), on_progress=lambda count: progress.advance(bar, count))
        progress.update(bar, total=await scan.size())
        yield scan


def _print_line(view: Console, line: str, style: str = "") -> None:
    view.print(Text(line, style), soft_wrap=True)
