"""Explains a payment to whoever may see it: the one function that the API, the command line and pages call."""

from uuid import UUID

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.explain.explanation import Explanation
from shared.explain.facts import Reader
from shared.explain.read import read_facts
from shared.explain.settings import gateway_settings
from shared.payments.find import Visible


async def explain(
    database: Database, settings: Settings, payment_id: UUID, visible: Visible, reader: Reader
) -> Explanation | None:
    """Return the explanation of the payment if the principal may see it; else None, as if there were no such payment.

    `reader` decides how much it shows. Raises DatabaseUnavailable.
    """
    facts = await read_facts(database, payment_id, visible)
    return Explanation(facts, gateway_settings(settings), reader) if facts else None
