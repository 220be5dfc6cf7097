"""How PostgreSQL runs each statement of the hot path: the verbs are called once, and what they said is explained."""

from typing import Any
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.config import Settings
from shared.db import open_database
from shared.deliveries import Delivered, DeliveryAttempt, claim_deliveries, hosts_of, record_attempts
from shared.ids import new_id
from shared.leases import take_due
from shared.lifecycle import FailureCode, HistoryReason
from shared.models import deliveries, payments
from shared.payments.accept import Accepted, Intent, accept
from shared.payments.find import Filters, Visible, find, newest
from shared.payments.history import history_of
from shared.payments.process import Failure, Record, claim, record

LEASE_S = 30.0
NAME_CHARS = 60


async def hot_path_plans(settings: Settings, user_id: str, method_id: str) -> dict[str, str]:
    """The plan of every statement from accept to the recorded delivery, by its verb and beginning.

    Nothing stays written: it all happens in a transaction that is rolled back.
    """
    database = open_database(settings)
    plans: dict[str, str] = {}
    try:
        async with database.transaction() as connection:
            now = await database.clock.now(connection)
            verbs = _Verbs(connection, plans)
            intent = _intent(user_id, UUID(method_id))
            [accepted] = await verbs.explained("accept", accept(connection, now, [intent]))
            assert isinstance(accepted, Accepted), accepted  # noqa: S101 - the method is there
            [claimed] = await verbs.explained("claim", claim(connection, now, [accepted.payment.ref], lease_s=LEASE_S))
            [recorded] = await verbs.explained("record", record(connection, now, [Record(claimed, FAILURE)]))
            refs = recorded.told.tickets
            await verbs.explained("hosts", hosts_of(connection, refs))
            [ours, *_] = await verbs.explained(
                "claim a delivery", claim_deliveries(connection, now, refs, lease_s=LEASE_S)
            )
            attempt = DeliveryAttempt(
                delivery=ours, outcome=Delivered(), duration_ms=1, status_code=200, error=None, response_body=b""
            )
            await verbs.explained("record a delivery", record_attempts(connection, now, [attempt]))
            for table in (payments, deliveries):
                await verbs.explained(f"due {table.name}", take_due(connection, table, now=now, limit=500))
            visible = Visible(user_id=user_id)
            await verbs.explained("get", find(connection, intent.id, visible))
            await verbs.explained("history", history_of(connection, intent.id))
            await verbs.explained("list", newest(connection, visible, Filters(), limit=20, before=None))
            await connection.rollback()
    finally:
        await database.dispose()
    return plans


FAILURE = Failure(
    reason=HistoryReason.GATEWAY_DECLINED,
    gateway="stripe_mock",
    failure_code=FailureCode.CARD_DECLINED,
    failure_reason="The card was declined.",
    gateway_details={},
    outcome_rule="rate",
)


class _Verbs:
    """Runs verbs and has PostgreSQL explain what each of them said."""

    def __init__(self, connection: AsyncConnection, plans: dict[str, str]) -> None:
        self._connection = connection
        self._plans = plans

    async def explained(self, verb: str, call: Any) -> Any:
        """What `call` answers."""
        said: list[tuple[str, Any]] = []

        def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
            said.append((statement, parameters[0] if many else parameters))

        connection = self._connection.sync_connection
        event.listen(connection, "before_cursor_execute", note)
        try:
            answer = await call
        finally:
            event.remove(connection, "before_cursor_execute", note)
        for statement, parameters in said:
            lines = (await self._connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)).scalars()
            name = f"{verb}: {' '.join(statement.split())[:NAME_CHARS]}"
            self._plans[name] = "\n".join(lines)
        return answer


def _intent(user_id: str, method_id: UUID) -> Intent:
    return Intent(
        id=new_id(),
        user_id=user_id,
        created_by=f"user:{user_id}",
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
