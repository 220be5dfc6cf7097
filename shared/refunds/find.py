"""Finding refunds. What a client asks for is found within the payments that its principal may see."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.refund_tables import refunds
from shared.refunds.refund import Refund


async def earlier_refunds(connection: AsyncConnection, refund: Refund) -> int:
    """Count the refunds of the same payment that were accepted before this one."""
    found = await connection.execute(
        select(func.count()).where(refunds.c.payment_id == refund.payment_id, refunds.c.number < refund.number)
    )
    return found.scalar_one()
