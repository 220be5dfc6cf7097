"""`payments verify`: recomputes the truth from the tables and the gateway's ledger, and says what does not agree.

It repairs nothing, and writes nothing but its report.
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
from sqlalchemy.exc import DBAPIError

from cli import verify_report
from cli.verify_scan import LEDGER, OPEN, RECORDS, SHOWN_MAX, TOLD, Found, Scan
from shared.config import Settings, load_settings
from shared.db import Database, open_database
from shared.errors import CommitUnknown, ConfigurationError, DatabaseUnavailable, SchemaOutdated
from shared.schema import require_current
from shared.verification import keep_report

DUE_MAX_S = 60.0  # the relay looks every second and publishes again what nobody claimed after 30 s
STATEMENT_TIMEOUT_S = 300.0  # counting all payments is one statement
EXIT_BROKEN = 1
EXIT_CANNOT_RUN = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    json: Path | None = None
    due_max_s: float = DUE_MAX_S
    orders_since: datetime | None = None  # None = since the first order update
    shown_max: int = SHOWN_MAX


def run_verify(options: Options, console: Console | None = None) -> int:
    """Do it; 0 if all is sound, 1 on any breach, 2 if it cannot run, 130 if it was interrupted."""
    view = console or Console(highlight=False)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(_run(load_settings(), options, view))
    except ConfigurationError as error:
        for line in str(error).splitlines():
            _say(view, line, "red")
    except (DatabaseUnavailable, CommitUnknown) as error:
        _say(view, f"The database does not answer: {error}", "red")
    except (SchemaOutdated, OSError) as error:
        _say(view, str(error), "red")
    except KeyboardInterrupt:
        _say(view, "Interrupted: there is no report.")
        return EXIT_INTERRUPTED
    else:
        return 0 if found.is_sound else EXIT_BROKEN
    return EXIT_CANNOT_RUN


async def _run(settings: Settings, options: Options, view: Console) -> Found:
    database = open_database(settings.model_copy(update={"database_timeout_s": STATEMENT_TIMEOUT_S}))
    try:
        await require_current(database)
        return await _verify(database, settings, options, view)
    except DBAPIError as error:
        raise ConfigurationError(f"DATABASE_URL: {settings.sqlalchemy_url} cannot be used: {error.orig}") from error
    finally:
        await database.dispose()


async def _verify(database: Database, settings: Settings, options: Options, view: Console) -> Found:
    started_at = await _now(database)
    async with _scanning(database, options, view) as scan:
        found = await verify(
            scan,
            due_max_s=options.due_max_s,
            tells_orders=settings.order_service_url is not None,
            orders_since=options.orders_since,
        )
    finished_at = await _now(database)
    report = verify_report.document(found, started_at=started_at, finished_at=finished_at)
    for line, style in verify_report.lines(found, took_s=(finished_at - started_at).total_seconds()):
        _say(view, line, style)
    if options.json is not None:
        options.json.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    async with database.transaction() as connection:
        await keep_report(connection, report, started_at=started_at, finished_at=finished_at)
    return found


async def verify(
    scan: Scan, *, due_max_s: float = DUE_MAX_S, tells_orders: bool = False, orders_since: datetime | None = None
) -> Found:
    """Check every invariant; that completed payments have an order update, only with `tells_orders`."""
    of_orders = await scan.of_order_updates(orders_since) if tells_orders else []
    await scan.of_payments([*RECORDS, *LEDGER, *TOLD, *OPEN, *of_orders])
    await scan.of_keys()
    await scan.of_due(due_max_s)
    return scan.found


@asynccontextmanager
async def _scanning(database: Database, options: Options, view: Console) -> AsyncIterator[Scan]:
    """A scan that moves a bar on a terminal."""
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=view, transient=True, disable=not view.is_terminal) as progress:
        bar = progress.add_task("verifying", total=None)
        scan = Scan(database, Found(options.shown_max), moved=lambda count: progress.advance(bar, count))
        progress.update(bar, total=await scan.size())
        yield scan


async def _now(database: Database) -> datetime:
    async with database.read() as connection:
        return await database.clock.now(connection)


def _say(view: Console, line: str, style: str = "") -> None:
    view.print(Text(line, style), soft_wrap=True)
