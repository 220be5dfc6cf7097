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
from cli.verify.report import document, lines
from cli.verify.scan import DELIVERIES, LEDGER, OPEN, RECORDS, SHOWN_MAX, Found, Scan
from shared.config.settings import Settings, load_settings
from shared.database.engine import Database, open_database
from shared.database.migrations import require_current
from shared.errors import CommitUnknown, ConfigurationError, DatabaseUnavailable, SchemaOutdated
from shared.event_types import EventType
from shared.verify_reports import keep_report

# Seconds. The relay looks every second, and publishes a row again if no worker has claimed it within 30 s.
DUE_MAX_S = 60.0
# Seconds that a claim lasts by default.
LEASE_S = 30.0
# Seconds. One statement counts all payments.
STATEMENT_TIMEOUT_S = 300.0
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
    database = open_database(settings.model_copy(update={"database_timeout_s": STATEMENT_TIMEOUT_S}))
    try:
        with refusal_names_the_setting(settings):
            await require_current(database)
            return await _verify(database, settings, options, view)
    finally:
        await database.dispose()


async def _verify(database: Database, settings: Settings, options: Options, view: Console) -> Found:
    started_at = await _now(database)
    async with _scanning(database, options, view) as scan:
        found = await verify(
            scan,
            due_max_s=options.due_max_s,
            confirms_orders=settings.order_service_url is not None,
            cancels_orders=settings.cancels_orders,
            orders_since=options.orders_since,
            lease_s=settings.lease_s,
            webhook_lease_s=settings.webhook_lease_s,
        )
    finished_at = await _now(database)
    report = document(found, started_at=started_at, finished_at=finished_at)
    for line, style in lines(found, took_s=(finished_at - started_at).total_seconds()):
        _print_line(view, line, style)
    if options.json is not None:
        options.json.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    async with database.transaction() as connection:
        await keep_report(connection, report, started_at=started_at, finished_at=finished_at)
    return found


async def verify(
    scan: Scan,
    *,
    due_max_s: float = DUE_MAX_S,
    confirms_orders: bool = False,
    cancels_orders: bool = False,
    orders_since: datetime | None = None,
    lease_s: float = LEASE_S,
    webhook_lease_s: float = LEASE_S,
) -> Found:
    """Check every invariant and return what was found.

    A payment or delivery may be due, or wait for its first claim, for `due_max_s` seconds. With `confirms_orders`, each
    payment that was completed after `orders_since` must have an order update; None means a minute after the first order
    update. With `cancels_orders` the same holds of refunded payments, from a minute after the first of their updates. A
    claim of a payment lasts `lease_s` seconds, and one of a delivery `webhook_lease_s`.
    """
    of_orders = await scan.order_update_queries(orders_since, EventType.COMPLETED) if confirms_orders else []
    if cancels_orders:
        of_orders += await scan.order_update_queries(None, EventType.REFUNDED)
    await scan.of_payments([*RECORDS, *LEDGER, *DELIVERIES, *OPEN, *of_orders])
    await scan.of_keys()
    await scan.of_due(due_max_s)
    await scan.of_leases(lease_s, webhook_lease_s)
    await scan.of_unclaimed(due_max_s)
    return scan.found


@asynccontextmanager
async def _scanning(database: Database, options: Options, view: Console) -> AsyncIterator[Scan]:
    """Provide a scan that moves a progress bar on a terminal."""
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=view, transient=True, disable=not view.is_terminal) as progress:
        bar = progress.add_task("verifying", total=None)
        scan = Scan(database, Found(options.shown_max), on_progress=lambda count: progress.advance(bar, count))
        progress.update(bar, total=await scan.size())
        yield scan


async def _now(database: Database) -> datetime:
    async with database.read() as connection:
        return await database.clock.now(connection)


def _print_line(view: Console, line: str, style: str = "") -> None:
    view.print(Text(line, style), soft_wrap=True)
