"""Lives of payments and refunds to be explained: moved by the real claims, gateway and records, on a clock of its own.

The payment is written as the API accepts it. No time passes but what the gateway takes and the test lets pass.
"""

from collections.abc import Sequence
from datetime import timedelta
from textwrap import wrap
from time import monotonic
from typing import Any
from uuid import UUID

from sqlalchemy import select

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.leases import Claimed
from shared.database.refund_tables import refunds
from shared.database.tables import columns_of
from shared.explain.explanation import Explanation
from shared.explain.facts import Reader
from shared.explain.of_payment import explain
from shared.gateway_calls import RepeatableKeys
from shared.ids import new_id
from shared.lifecycle import ActionResult
from shared.payments.claim import claim
from shared.payments.find import Visible
from shared.payments.payment import Payment
from shared.payments.record import Record, record
from shared.payments.requests import answer_action, cancel, capture
from shared.refund_lifecycle import RefundReason
from shared.refunds.claim import claim_refunds
from shared.refunds.record import RefundRecord, record_refunds
from shared.refunds.refund import Refund
from shared.refunds.requests import RefundMoved, RefundRequest, request_refund
from shared.simulation.calls import NOT_STEERED, Steering
from tests.support.harness import SetClock
from tests.support.rows import accepted, read, write
from worker.gateway.deciding import Rules
from worker.gateway.ledger import Ledger
from worker.gateway.simulator import SimulatedGateway
from worker.payments.charge import Charger
from worker.refunds.repay import Repayer
from worker.rules import ChargeRules
from worker.slots import Slots

QUEUE_MS = 20
LEASE_S = 30
OWNER, ADMIN = Reader("1", is_admin=False), Reader("7", is_admin=True)


class Life:
    """A gateway and a worker over one database, and the payments that they move."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        clock: SetClock,
        settings: Settings,
        *,
        rules: Rules | None = None,
        orders: Any = None,
    ) -> None:
        self.database, self.clock, self.settings = database, clock, settings
        gateway = SimulatedGateway(
            ledger,
            seed=settings.simulator_seed,
            seed_keys=RepeatableKeys(database) if settings.simulator_seed is not None else None,
            rules=rules,
            success_rate=settings.payment_success_rate,
            failure_scenarios=settings.payment_failure_scenarios,
            delay_min_ms=settings.payment_processing_delay_min,
            delay_max_ms=settings.payment_processing_delay_max,
            sleep=self._sleep,
        )
        charge_rules = ChargeRules(max_claims=2, gateway_tries_max=3, gateway_backoff_s=1, order_check_timeout_s=5)
        self._charger = Charger(gateway, charge_rules, orders)
        self._repayer = Repayer(gateway, charge_rules)

    async def _sleep(self, seconds: float) -> None:
        self.passes(round(seconds * 1000))

    def passes(self, ms: int) -> None:
        """Let time pass."""
        self.clock.moment += timedelta(milliseconds=ms)

    # -- what clients do

    async def accepts(self, *, steering: Steering | None = None, **changes: Any) -> UUID:
        """Accept a payment, and return its id."""
        values = {"order_id": "o-1", "amount": 1585, "idempotency_key": "k-1", **changes}
        payment = accepted(self.clock.moment, steering=steering.stored if steering else None, **values)
        await write(self.database, payment)
        return payment.id

    async def captures(self, payment_id: UUID, amount: int, steering: Steering | None = None) -> None:
        async with self.database.transaction() as connection:
            wanted = steering or NOT_STEERED
            by = "service:shop"
            await capture(connection, payment_id, amount=amount, steering=wanted, by=by, now=self.clock.moment)

    async def cancels(self, payment_id: UUID) -> None:
        async with self.database.transaction() as connection:
            await cancel(connection, payment_id, by="user:1", now=self.clock.moment)

    async def answers(self, payment_id: UUID, result: ActionResult) -> None:
        async with self.database.transaction() as connection:
            await answer_action(connection, payment_id, result=result, by="user:1", now=self.clock.moment)

    async def refunds(self, payment_id: UUID, amount: int, steering: Steering | None = None) -> UUID:
        """Accept a refund, and work until it has ended."""
        asked = RefundRequest(
            id=new_id(), amount=amount, reason=RefundReason.OTHER, metadata={}, created_by="service:shop",
            correlation_id=None, steering=steering or NOT_STEERED,
        )  # fmt: skip
        async with self.database.transaction() as connection:
            moved = await request_refund(connection, payment_id, asked, now=self.clock.moment)
        assert isinstance(moved, RefundMoved)
        while (refund := await self._refund(asked.id)).due_at is not None:
            await self._works_on_refund(refund)
        return asked.id

    # -- what a worker does

    async def works(self, payment_id: UUID, *, times: int = 50) -> Payment:
        """Claim the payment again and again until nothing is due that no client must ask for; return it."""
        for _ in range(times):
            payment = await read(self.database, payment_id)
            if payment.due_at is None or payment.status.is_settled:
                break
            await self.works_once(payment_id)
        return await read(self.database, payment_id)

    async def works_once(self, payment_id: UUID, *, dies: bool = False) -> None:
        """Claim the payment when it is due, ask the gateway, and record that; a worker that `dies` does only the first.

        What nobody has to wait for is claimed after QUEUE_MS.
        """
        payment = await read(self.database, payment_id)
        is_new = payment.due_reason == "claimed" and not (payment.steering or {}).get("pending_ms")
        if not is_new and payment.due_at is not None:
            self.clock.moment = max(self.clock.moment, payment.due_at)
        self.passes(QUEUE_MS)
        async with self.database.transaction() as connection:
            [claimed] = await claim(connection, self.clock.moment, [payment.work_item], lease_s=LEASE_S)
        if dies or not isinstance(claimed, Claimed):
            return
        outcome = await self._charger.outcome(claimed.row, monotonic() + LEASE_S, Slots("test", 1))
        assert outcome is not None
        self.passes(5)
        async with self.database.transaction() as connection:
            await record(connection, self.clock.moment, [Record(claimed.row, outcome)])

    async def _works_on_refund(self, refund: Refund) -> None:
        if refund.due_reason != "claimed" and refund.due_at is not None:
            self.clock.moment = max(self.clock.moment, refund.due_at)
        self.passes(QUEUE_MS)
        async with self.database.transaction() as connection:
            [claimed] = await claim_refunds(connection, self.clock.moment, [refund.work_item], lease_s=LEASE_S)
        assert claimed is not None
        outcome = await self._repayer.outcome(claimed.row, monotonic() + LEASE_S, Slots("test", 1))
        assert outcome is not None
        self.passes(5)
        async with self.database.transaction() as connection:
            await record_refunds(connection, self.clock.moment, [RefundRecord(claimed.row, outcome)])

    async def _refund(self, refund_id: UUID) -> Refund:
        async with self.database.read() as connection:
            found = await connection.execute(select(*columns_of(refunds)).where(refunds.c.id == refund_id))
        return Refund.of(found.mappings().one())

    # -- what is said of it

    async def explained(self, payment_id: UUID, reader: Reader = OWNER, **changes: Any) -> Explanation:
        """Return the explanation of the payment, for its owner."""
        settings = self.settings.model_copy(update=changes)
        found = await explain(self.database, settings, payment_id, Visible(), reader)
        assert found is not None
        return found


def text_of(explanation: Explanation) -> str:
    """Return the words of an explanation as one text of short lines, without the commands to paste."""
    lines: list[str] = []
    for section in explanation.sections():
        lines += ["", section.heading]
        for sentence in section.sentences:
            lines += wrap(sentence, 100, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(lines[1:])


def sentences_of(explanation: Explanation) -> Sequence[str]:
    """Return all sentences of an explanation."""
    return [sentence for section in explanation.sections() for sentence in section.sentences]
