"""The reports of `payments verify`, in a table, so that every API process can answer with the last report."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.tables import verify_reports
from shared.ids import new_id

REPORTS_KEPT = 100  # the latest


async def keep_report(
    connection: AsyncConnection, report: dict[str, Any], *, started_at: datetime, finished_at: datetime
) -> None:
    """Store a report, and delete all but the latest 100."""
    row = {"id": new_id(), "started_at": started_at, "finished_at": finished_at, "report": report}
    await connection.execute(insert(verify_reports), row)
    kept = select(verify_reports.c.id).order_by(verify_reports.c.id.desc()).limit(REPORTS_KEPT)
    await connection.execute(delete(verify_reports).where(verify_reports.c.id.not_in(kept)))


async def last_report(connection: AsyncConnection) -> dict[str, Any] | None:
    """Return the report that was stored last; None if there is none."""
    found = await connection.execute(select(verify_reports.c.report).order_by(verify_reports.c.id.desc()).limit(1))
    report: dict[str, Any] | None = found.scalar_one_or_none()
    return report
