"""Processing payments: claim what there are slots for, check the order, ask the gateway, record its answer.

The outside is asked with no transaction open, and the gateway only once the order (if there are any) has been found
payable. A payment that fails because of its order is closed at the gateway first, whose record counts.

Nothing here decides whether money moves: that is the gateway's word, and its ledger's.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import metrics
from shared.db import Database
from shared.deliveries import ClaimedDelivery
from shared.documents import Payment
from shared.errors import CommitUnknown, DatabaseUnavailable, NeighbourUnreachable, Overloaded
from shared.group_commit import GroupCommit
from shared.leases import Ref
from shared.lifecycle import FailureCode, HistoryReason, MethodType
from shared.payments.process import (
    Approval,
    Failure,
    Outcome,
    Postpone,
    Record,
    Recorded,
    Release,
    Retry,
    claim,
    earlier_payments,
    record,
)
from shared.queue import Publisher, Queue
from worker.gateway.protocol import (
    Answer,
    Approved,
    ChargeRequest,
    Gateway,
    GatewayUnavailable,
    OutcomeUnknown,
)
from worker.orders import NotPayable, OrderBook

log = structlog.get_logger(__name__)

COMMIT_MAX = 200  # claims or records in one transaction
CLAIM_REST, RECORD_REST = 0.5, 6.0  # times the last commit, before the next one: see GroupCommit
ASK_AGAIN_S = 0.5  # between questions to a gateway whose answer was lost
RECORD_PAUSE_S, RECORD_PAUSE_MAX_S = 0.1, 2.0  # between tries to record, doubling, while the lease holds
ORDER_RULE = "order"  # the `outcome_rule` of a payment that its order decided
BACKOFF_DOUBLINGS_MAX = 16
ORDER_BACKOFF_MAX_S = 10.0  # between two looks at an order service that does not answer
LEASE_MARGIN_S = 1.0  # what is left of a lease when nothing new is begun under it
AFTERMATH_S = 5.0  # for claims and records that a shutdown meets half-way
UNWRITTEN = (DatabaseUnavailable, CommitUnknown, Overloaded)  # after these a record is worth another try


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a worker treats its payments."""

    concurrency: int
    lease_s: float
    max_claims: int
    gateway_tries_max: int
    gateway_backoff_s: float
    is_seeded: bool  # SIMULATOR_SEED is set: outcomes hang on what a payment is to its client
    order_check_timeout_s: float = 60
    order_backoff_s: float = 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a payment must not be charged."""

    failure_code: FailureCode
    reason: HistoryReason


class Sender(Protocol):
    """Sends deliveries from this process; `worker.deliver` has the one there is."""

    @property
    def has_room(self) -> bool:
        """What is taken over now is sent soon."""
        ...

    @property
    def lease_s(self) -> float:
        """For how long to claim what it takes over."""
        ...

    def take_over(self, claimed: Sequence[ClaimedDelivery], claimed_at: float) -> None:
        """Send these; `claimed_at` (monotonic) is from before they were claimed."""
        ...


class Processor:
    """At most `concurrency` payments in the gateway at once, each in a task of its own.

    A payment has its slot until the gateway has answered. As many again may wait for their record to be committed;
    when they do, the database is behind and no slot is given out.

    Without `orders` every order is payable. `sender` is given the deliveries of payments that end here, claimed, while
    it has room; otherwise their tickets go to the queue.
    """

    def __init__(
        self,
        database: Database,
        gateway: Gateway,
        publisher: Publisher,
        rules: Rules,
        orders: OrderBook | None = None,
        *,
        sender: Sender | None = None,
    ) -> None:
        self._database = database
        self._gateway = gateway
        self._orders = orders
        self._publisher = publisher
        self._sender = sender
        self._rules = rules
        self._claims: GroupCommit[Ref, Payment | None] = GroupCommit(
            database,
            partial(claim, lease_s=rules.lease_s),
            batch_max=COMMIT_MAX,
            queue_max=rules.concurrency,
            rest=CLAIM_REST,
        )
        self._records: GroupCommit[Record, Recorded | None] = GroupCommit(
            database,
            self._write_records,
            batch_max=COMMIT_MAX,
            queue_max=2 * rules.concurrency,
            rest=RECORD_REST,
            committed=self._recorded,
        )
        self._recording_since = -inf  # monotonic, the last transaction of records
        self.settled = 0  # payments, since the start
        self._taken = 0  # slots: payments that are being claimed or asked about
        self._open = 0  # these, and those that are being recorded
        self._freed = asyncio.Event()  # a slot has been given back, or no more will be
        self._asking: dict[asyncio.Task[None], Payment] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = asyncio.Event()
        self._is_releasing = False
        self._ended = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._grace_s = 0.0

    @property
    def free(self) -> int:
        """Slots for further payments; none before `run` and after `stop`."""
        if self._group is None or self._stopping.is_set():
            return 0
        slots = self._rules.concurrency
        return min(slots - self._taken, 2 * slots - self._open)

    @property
    def in_gateway(self) -> int:
        """Payments that the gateway is being asked about."""
        return len(self._asking)

    async def offer(self, refs: Sequence[Ref]) -> list[Ref]:
        """Claim as many of `refs` as there are free slots and begin to process them; answers those left over."""
        mine, rest = list(refs[: self.free]), list(refs[self.free :])
        self._take(len(mine))
        claimed_at = monotonic()  # from before the claims: never later than the rows say
        try:
            answers = await asyncio.gather(*(self._claims.submit(ref) for ref in mine), return_exceptions=True)
        except asyncio.CancelledError:
            for _ in mine:
                self._drop()  # what is claimed all the same is left to its lease
            raise
        failures: list[BaseException] = []
        for answer in answers:
            if isinstance(answer, Payment) and self._group is not None:
                self._group.create_task(self._process(answer, claimed_at))
                continue
            self._drop()
            if isinstance(answer, BaseException):
                failures.append(answer)  # safe to drop: the row is due, or its lease will end, and the relay brings it
        if failures:
            log.warning("payments.claims_failed", count=len(failures), error=repr(failures[0]))
        return rest

    async def frees_a_slot(self, within_s: float) -> bool:
        """Wait for a free slot; False if there is none in time, or there will be no more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self.free and not self._stopping.is_set():
                    self._freed.clear()
                    await self._freed.wait()
        return self.free > 0

    async def run(self) -> None:
        """Process what is offered until `stop`."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._claims.run())
                group.create_task(self._records.run())
                self._group = group
                try:
                    await self._stopping.wait()
                finally:
                    self._stopping.set()  # also when the group fails: nothing may start in it any more
                    self._freed.set()
                await self._drain()
                self._claims.close()
                self._records.close()
        finally:
            self._ended.set()

    async def stop(self, grace_s: float) -> None:
        """End `run`: claim nothing more, let the gateway answer for `grace_s`, release the rest at once."""
        self._grace_s = grace_s
        self._stopping.set()
        self._freed.set()
        if self._group is not None:
            await self._ended.wait()

    def _take(self, slots: int) -> None:
        self._taken += slots
        self._open += slots
        if self._open:
            self._idle.clear()

    def _give_back(self) -> None:
        """The gateway is done with a payment: somebody else may have its slot."""
        self._taken -= 1
        self._freed.set()

    def _finish(self) -> None:
        """We are done with a payment whose slot has been given back."""
        self._open -= 1
        self._freed.set()
        if not self._open:
            self._idle.set()

    def _drop(self) -> None:
        self._give_back()
        self._finish()

    async def _process(self, payment: Payment, claimed_at: float) -> None:
        """One claimed payment, from the question to the record, in a slot."""
        lease_ends = claimed_at + self._rules.lease_s - LEASE_MARGIN_S
        names = {"payment_id": str(payment.id), "correlation_id": payment.correlation_id}
        try:
            with structlog.contextvars.bound_contextvars(**names):
                log.info("payment.claimed", attempt=payment.attempt)
                try:
                    outcome = await self._ask(payment, lease_ends)
                finally:
                    self._give_back()
                if outcome is not None:
                    await self._record(Record(payment, outcome), lease_ends)
        except Exception:  # the job loop: one payment's bug must not end the others; its lease will end
            log.exception("payment.crashed", payment_id=str(payment.id))
        finally:
            self._finish()

    async def _ask(self, payment: Payment, lease_ends: float) -> Outcome | None:
        """What the gateway says; None if nobody could be heard while the lease held: then the next claim asks."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has a task
        self._asking[task] = payment
        metrics.in_gateway.set(len(self._asking))
        try:
            objection = await self._check_order(payment)
            if isinstance(objection, Postpone):
                return objection
            while monotonic() < lease_ends:
                if self._is_releasing:  # its claim was still being committed when the others were released
                    return Release()
                try:
                    return await self._ask_once(payment, await self._request(payment), objection)
                except (OutcomeUnknown, DatabaseUnavailable) as error:
                    log.warning("payment.outcome_unknown", attempt=payment.attempt, error=str(error))
                await asyncio.sleep(ASK_AGAIN_S)
            log.warning("payment.left_to_its_lease", attempt=payment.attempt)
        except asyncio.CancelledError:
            if not self._is_releasing:  # the group fails: nobody would write a record any more
                raise
            task.uncancel()
            return Release()
        finally:
            del self._asking[task]
            metrics.in_gateway.set(len(self._asking))
        return None

    async def _check_order(self, payment: Payment) -> Refusal | Postpone | None:
        """What the order says against the payment; None if nothing."""
        if self._orders is None or self._is_worn_out(payment):
            return None
        try:
            verdict = await self._orders.check(payment)
        except NeighbourUnreachable as error:
            claimed_at = payment.updated_at
            until = payment.order_check_until or claimed_at + timedelta(seconds=self._rules.order_check_timeout_s)
            log.warning("payment.order_unreachable", attempt=payment.attempt, error=str(error))
            if claimed_at >= until:
                return Refusal(FailureCode.ORDER_SERVICE_UNAVAILABLE, HistoryReason.ORDER_CHECK_TIMED_OUT)
            wait_s = self._rules.order_backoff_s * 2 ** min(payment.order_checks, BACKOFF_DOUBLINGS_MAX)
            return Postpone(min(wait_s, ORDER_BACKOFF_MAX_S), until)
        if isinstance(verdict, NotPayable):
            return Refusal(verdict.failure_code, HistoryReason.ORDER_REFUSED)
        return None

    def _is_worn_out(self, payment: Payment) -> bool:
        """It has taken its workers down with it, again and again: only the gateway's record counts now."""
        answered = payment.gateway_tries + payment.order_checks
        return payment.attempt - answered > self._rules.max_claims

    async def _ask_once(self, payment: Payment, request: ChargeRequest, refusal: Refusal | None) -> Outcome:
        if self._is_worn_out(payment):
            return _settled(await self._gateway.close(request), HistoryReason.CLAIMS_EXHAUSTED)
        if refusal is not None:
            return await self._refuse(request, refusal)
        try:
            answer = await self._gateway.charge(request)
        except GatewayUnavailable as error:
            if payment.gateway_tries + 1 < self._rules.gateway_tries_max:
                return Retry(self._rules.gateway_backoff_s * 2**payment.gateway_tries)
            closed = await self._gateway.close(request, FailureCode.NETWORK_ERROR)
            if isinstance(closed, Approved):
                return _settled(closed, HistoryReason.GATEWAY_APPROVED)
            return _settled(replace(closed, outcome_rule=error.outcome_rule), HistoryReason.GATEWAY_UNREACHABLE)
        is_approved = isinstance(answer, Approved)
        return _settled(answer, HistoryReason.GATEWAY_APPROVED if is_approved else HistoryReason.GATEWAY_DECLINED)

    async def _refuse(self, request: ChargeRequest, refusal: Refusal) -> Outcome:
        """Fail the payment; what a worker before us has charged all the same was charged, and counts."""
        closed = await self._gateway.close(request, refusal.failure_code)
        if isinstance(closed, Approved):
            return _settled(closed, HistoryReason.GATEWAY_APPROVED)
        if closed.failure_code != refusal.failure_code:
            return _settled(closed, HistoryReason.GATEWAY_DECLINED)
        return Failure(
            reason=refusal.reason,
            gateway=None,
            failure_code=closed.failure_code,
            failure_reason=closed.failure_reason,
            gateway_details=None,
            outcome_rule=ORDER_RULE,
        )

    async def _request(self, payment: Payment) -> ChargeRequest:
        scenario = payment.method["scenario"]
        return ChargeRequest(
            payment_id=payment.id,
            identity=await self._identity(payment),
            method_type=MethodType(payment.method["type"]),
            scenario=FailureCode(scenario) if scenario else None,
            amount=payment.amount,
            currency=payment.currency,
            gateway_try=payment.gateway_tries,
        )

    async def _identity(self, payment: Payment) -> str:
        """What the payment is to its client: the same again when a whole run is repeated with the same seed."""
        if not self._rules.is_seeded:
            return str(payment.id)
        if payment.idempotency_key is not None:
            return f"{payment.user_id} key {payment.idempotency_key}"
        async with self._database.read() as connection:
            earlier = await earlier_payments(connection, [payment.id])
        return f"{payment.user_id} order {payment.order_id} {earlier[payment.id]}"

    async def _record(self, item: Record, lease_ends: float) -> None:
        """Write down what the gateway said, as long as the claim may still hold; else the next claim asks it again."""
        pause_s = RECORD_PAUSE_S
        while True:
            try:
                recorded = await self._records.submit(item)
            except UNWRITTEN as error:
                if monotonic() + pause_s > lease_ends or self._is_releasing:
                    log.warning("payment.record_failed", attempt=item.payment.attempt, error=repr(error))
                    return
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RECORD_PAUSE_MAX_S)
            else:
                _tell(item, recorded)
                return

    async def _write_records(
        self, connection: AsyncConnection, now: datetime, items: Sequence[Record]
    ) -> list[Recorded | None]:
        self._recording_since = monotonic()
        sender = self._sender if self._sender and self._sender.has_room else None
        return await record(
            connection,
            now,
            items,
            confirms_orders=self._orders is not None,
            claim_deliveries_for_s=sender.lease_s if sender else None,
        )

    def _recorded(self, batch: Sequence[Recorded | None]) -> None:
        """After each commit: deliveries go out, and whoever waits is woken, one message for all."""
        done = [recorded for recorded in batch if recorded is not None]
        settled = [item.payment.id for item in done if item.payment.status.is_terminal]
        self.settled += len(settled)
        self._publisher.wake(settled)
        self._publisher.publish(Queue.DELIVER, [ref for item in done for ref in item.told.tickets])
        if self._sender is not None:
            self._sender.take_over([each for item in done for each in item.told.claimed], self._recording_since)
        # A payment that was released, or is due again at once, need not wait for the relay.
        released = [item.payment.ref for item in done if item.payment.due_reason == HistoryReason.RELEASED]
        self._publisher.publish(Queue.PROCESS, released)

    async def _drain(self) -> None:
        """Let the gateway answer, then cancel the questions; what was learned is still recorded."""
        if await self._idles_within(self._grace_s):
            return
        log.info("payments.released", count=len(self._asking))
        self._is_releasing = True
        for task in list(self._asking):
            task.cancel()
        if not await self._idles_within(AFTERMATH_S):
            log.warning("payments.left_to_their_leases", count=self._open)

    async def _idles_within(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


def _settled(answer: Answer, reason: HistoryReason) -> Approval | Failure:
    match answer:
        case Approved():
            return Approval(
                reason=reason,
                gateway=answer.gateway,
                gateway_transaction_id=answer.transaction_id,
                gateway_details=answer.details,
                outcome_rule=answer.outcome_rule,
            )
        case _:
            return Failure(
                reason=reason,
                gateway=answer.gateway,
                failure_code=answer.failure_code,
                failure_reason=answer.failure_reason,
                gateway_details=answer.details,
                outcome_rule=answer.outcome_rule,
            )


def _tell(item: Record, recorded: Recorded | None) -> None:
    """One log line and one count per move."""
    names: dict[str, Any] = {"attempt": item.payment.attempt}
    if recorded is None:
        log.info("payment.claim_lost", **names)
        return
    payment = recorded.payment
    match item.outcome:
        case Approval() as approval:
            log.info("payment.completed", **names, gateway=approval.gateway, outcome_rule=approval.outcome_rule)
        case Failure() as failure:
            log.info("payment.failed", **names, failure_code=failure.failure_code, outcome_rule=failure.outcome_rule)
        case Retry(wait_s):
            log.info("payment.postponed", **names, wait_s=wait_s, gateway_try=payment.gateway_tries)
        case Postpone(wait_s):
            log.info("payment.postponed", **names, wait_s=wait_s, order_check=payment.order_checks)
        case Release():
            log.info("payment.released", **names)
    if payment.processed_at is not None:
        metrics.settled.labels(payment.status, payment.failure_code or "").inc()
        metrics.settle_seconds.observe((payment.processed_at - payment.created_at).total_seconds())
