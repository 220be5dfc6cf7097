"""The plans of PostgreSQL for each statement of the hot path: each operation runs once, and EXPLAIN shows its plans."""

from typing import Any
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.config.settings import Settings
from shared.database.engine import open_database
from shared.database.leases import take_due
from shared.database.tables import deliveries, payments
from shared.ids import new_id
from shared.lifecycle import FailureCode, HistoryReason
from shared.payments.accept import Accepted, accept
from shared.payments.claim import claim
from shared.payments.find import Filters, Visible, find, find_newest
from shared.payments.history import history_of
from shared.payments.intent import Intent
from shared.payments.outcomes import Declined, Settled
from shared.payments.record import Record, record
from shared.payments.usable_methods import MethodRules
from shared.webhooks.attempts import Delivered, DeliveryAttempt, record_attempts
from shared.webhooks.deliveries import claim_deliveries, flows_of

LEASE_S = 30.0
NAME_CHARS = 60
RULES = MethodRules(scenarios={}, has_workers_of_0_1=lambda: False)


async def hot_path_plans(settings: Settings, user_id: str, method_id: str) -> dict[str, str]:
    """Return the plan of each statement from accept to the recorded delivery, by its operation and its beginning.

    Nothing stays in the database: all operations run in a transaction that is rolled back.
    """
    database = open_database(settings)
    plans: dict[str, str] = {}
    try:
        async with database.transaction() as connection:
            now = await database.clock.now(connection)
            explainer = _Explainer(connection, plans)
            intent = _intent(user_id, UUID(method_id))
            [accepted] = await explainer.explain("accept", accept(connection, now, [intent], rules=RULES))
            assert isinstance(accepted, Accepted), accepted  # noqa: S101 - the method is there
            items = [accepted.payment.work_item]
            [claimed] = await explainer.explain("claim", claim(connection, now, items, lease_s=LEASE_S))
            [recorded] = await explainer.explain("record", record(connection, now, [Record(claimed.payment, FAILURE)]))
            items = recorded.deliveries.to_publish
            await explainer.explain("flows", flows_of(connection, items))
            [leased, *_] = await explainer.explain(
                "claim a delivery", claim_deliveries(connection, now, items, lease_s=LEASE_S)
            )
            attempt = DeliveryAttempt(
                delivery=leased, outcome=Delivered(), duration_ms=1, status_code=200, error=None, response_body=b""
            )
            await explainer.explain("record a delivery", record_attempts(connection, now, [attempt]))
            for table in (payments, deliveries):
                await explainer.explain(f"due {table.name}", take_due(connection, table, now=now, limit=500))
            visible = Visible(user_id=user_id)
            await explainer.explain("get", find(connection, intent.id, visible))
            await explainer.explain("history", history_of(connection, intent.id, names_workers=True))
            await explainer.explain("list", find_newest(connection, visible, Filters(), limit=20, before=None))
            await connection.rollback()
    finally:
        await database.dispose()
    return plans


FAILURE = Settled(
    Declined(
        gateway="stripe_mock",
        failure_code=FailureCode.CARD_DECLINED,
        failure_reason="The card was declined.",
        details={},
        outcome_rule="rate",
    ),
    HistoryReason.GATEWAY_DECLINED,
)


class _Explainer:
    """Runs operations and has PostgreSQL explain each statement that they execute."""

    def __init__(self, connection: AsyncConnection, plans: dict[str, str]) -> None:
        self._connection = connection
        self._plans = plans

    async def explain(self, operation: str, call: Any) -> Any:
        """Await `call`, note the plans of its statements, and return its result."""
        executed: list[tuple[str, Any]] = []

        def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
            executed.append((statement, parameters[0] if many else parameters))

        connection = self._connection.sync_connection
        event.listen(connection, "before_cursor_execute", note)
        try:
            answer = await call
        finally:
            event.remove(connection, "before_cursor_execute", note)
        for statement, parameters in executed:
            lines = (await self._connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)).scalars()
            name = f"{operation}: {' '.join(statement.split())[:NAME_CHARS]}"
            self._plans[name] = "\n".join(lines)
        return answer


def _intent(user_id: str, method_id: UUID) -> Intent:
    return Intent(
        id=new_id(),
        user_id=user_id,
        created_by=f"user:{user_id}",
        visible=Visible(user_id=user_id),
        order_id=f"plan-{new_id()}",
        payment_method_id=method_id,
        amount=1000,
        currency="USD",
        description=None,
        metadata={},
        callback_url=None,
        correlation_id=None,
        idempotency=None,
    )
