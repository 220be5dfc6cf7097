"""Migrations down to a revision, and `payments migrate` as a process."""

import subprocess
import sys
from math import inf
from pathlib import Path

from alembic import command
from sqlalchemy import Connection

from shared.config.settings import Settings
from shared.database.engine import open_database
from shared.database.migrations import config
from tests.support.processes import environment_of


async def downgrade(settings: Settings, to: str) -> None:
    """Take the schema back to a revision, in one transaction."""

    def run(connection: Connection) -> None:
        configuration = config()
        configuration.attributes["connection"] = connection
        command.downgrade(configuration, to)

    database = open_database(settings, statement_s=inf)
    try:
        async with database.transaction() as connection:
            await connection.run_sync(run)
    finally:
        await database.dispose()


def ran_migrate(settings: Settings, *, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run `payments migrate` to its end."""
    return subprocess.run(
        [Path(sys.executable).with_name("payments"), "migrate"],
        env={"PATH": "", **environment_of(settings)}, capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip
