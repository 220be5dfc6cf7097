"""Delivering: a bounded pool that holds tickets by receiver, and claims, sends and records each delivery.

A webhook is posted; the order service is told in its own way, by `worker.orders`, and everything else is the same.

No claim waits in a queue and no transaction is open while a receiver is asked. A ticket that is dropped here is only
late: its row stays due and the relay brings it again.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from itertools import count
from time import monotonic
from typing import assert_never
from uuid import UUID

import structlog
from aiohttp import ClientSession
from aiohttp.abc import AbstractResolver
from cryptography.fernet import InvalidToken
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import events, metrics
from shared.addresses import AddressPolicy, origin
from shared.config import Settings
from shared.db import Database
from shared.deliveries import (
    ClaimedDelivery,
    Conflict,
    Delivered,
    DeliveryAttempt,
    Exhausted,
    Gone,
    Outcome,
    TryAgain,
    claim_deliveries,
    hosts_of,
    record_attempts,
    release,
)
from shared.errors import CommitUnknown, DatabaseUnavailable, PaymentsError
from shared.group_commit import GroupCommit
from shared.leases import Ref
from shared.lifecycle import DeliveryKind
from shared.vault import Vault
from worker.guard import guarded_connector
from worker.lanes import Lanes
from worker.orders import Confirmation, OrderNotifier, OrderStatus
from worker.webhooks import JITTER_MAX, Answer, decide, headers_of, open_session, parse_retry_after, post

log = structlog.get_logger(__name__)

COMMIT_MAX = 200  # claims or records in one transaction
CLAIM_REST, RECORD_REST = 1.0, 8.0  # times the last commit, before the next one: see GroupCommit
SLOW_SHARE = 0.5  # of the timeout: a receiver that took longer counts as slow until it answers sooner
SECRETS_CACHED = 1_000  # decrypting takes longer than signing
RECORD_PAUSE_S, RECORD_PAUSE_MAX_S = 0.1, 2.0  # between tries to record, doubling, while the lease holds
FRESH_S = 2.0  # after a claim it is signed and sent, with the claim's moment as its timestamp
AFTERMATH_S = 5.0  # for claims and records that a shutdown meets half-way


@dataclass(frozen=True, slots=True)
class _Held:
    """A claim of this worker."""

    delivery: ClaimedDelivery
    claimed_at: float  # monotonic, s


@dataclass(frozen=True, slots=True)
class _Made:
    """An attempt that is to be recorded."""

    attempt: DeliveryAttempt
    claimed_at: float  # monotonic, s


class Deliverer:
    """The pool: at most WEBHOOK_CONCURRENCY sends at once, WEBHOOK_CONCURRENCY_PER_HOST of them to one host."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        settings: Settings,
        *,
        version: str,
        orders: OrderNotifier | None = None,
        resolver: AbstractResolver | None = None,
        draw_jitter: Callable[[], float] = lambda: random.uniform(-JITTER_MAX, JITTER_MAX),  # noqa: S311 - no secret
    ) -> None:
        self._database = database
        self._vault = vault
        self._orders = orders
        self._endpoint_secret = lru_cache(SECRETS_CACHED)(vault.decrypt)
        self._policy = AddressPolicy(settings.delivery_networks, settings.own_ports)
        self._resolver = resolver
        self._user_agent = f"payments/{version}"
        self._timeout_s = settings.webhook_timeout
        self._lease_s = settings.webhook_lease_s
        self._schedule = settings.webhook_retry_schedule
        self._slots = settings.webhook_concurrency
        self._draw_jitter = draw_jitter
        self._lanes = Lanes(slots_per_host=settings.webhook_concurrency_per_host)
        self._claims: GroupCommit[Ref, ClaimedDelivery | None] = GroupCommit(
            database,
            partial(claim_deliveries, lease_s=settings.webhook_lease_s),
            batch_max=COMMIT_MAX,
            queue_max=self._slots,
            rest=CLAIM_REST,
        )
        self._records: GroupCommit[DeliveryAttempt, bool] = GroupCommit(
            database,
            _record_attempts,
            batch_max=COMMIT_MAX,
            queue_max=self._slots,
            rest=RECORD_REST,
        )
        self._sends: dict[int, asyncio.Task[None]] = {}
        self._numbers = count()
        self._held: dict[UUID, _Held] = {}  # claims that came with their tickets and wait in the lanes
        self._posting: set[asyncio.Timeout] = set()  # each breaks its POST off when it is rescheduled to now
        self._unsent: list[Ref] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._session: ClientSession | None = None
        self._group: asyncio.TaskGroup | None = None
        self._stopping = asyncio.Event()
        self._is_aborting = False
        self._grace_s = 0.0
        self._ended = asyncio.Event()

    @property
    def queued(self) -> int:
        """Tickets that wait for a slot."""
        return len(self._lanes)

    @property
    def in_flight(self) -> int:
        """Deliveries that are being claimed, sent or recorded."""
        return len(self._sends)

    @property
    def has_room(self) -> bool:
        """What waits here would be begun soon; beyond that another worker may be sooner."""
        return self._group is not None and not self._stopping.is_set() and self.queued < 2 * self._slots

    @property
    def lease_s(self) -> float:
        """How long a claim holds."""
        return self._lease_s

    def take_over(self, claimed: Sequence[ClaimedDelivery], claimed_at: float) -> None:
        """Send what was written down as claimed for this worker; `claimed_at` (monotonic) is from before that."""
        if self._stopping.is_set():  # the stop came between: released, or left to their leases
            self._unsent += [delivery.ref for delivery in claimed]
            return
        for delivery in claimed:
            if self._lanes.put(origin(delivery.url) or delivery.kind, delivery.ref):
                self._held[delivery.id] = _Held(delivery, claimed_at)
        self._start_sends()

    async def offer(self, refs: Sequence[Ref]) -> int:
        """Take tickets; returns how many found room. What has ended, is stale or does not fit is dropped.

        Returns at once: nothing is claimed yet, and a ticket need not be brought again by whoever offered it.
        """
        if self._stopping.is_set() or not refs:
            return 0
        try:
            async with self._database.read() as connection:
                found = await hosts_of(connection, refs)
        except DatabaseUnavailable as error:
            log.warning("delivery.tickets_dropped", count=len(refs), error=str(error))  # the relay brings them again
            return 0
        if self._stopping.is_set():
            return 0
        queued = sum([self._lanes.put(host, ref) for ref, host in found])
        self._start_sends()
        return queued

    async def run(self) -> None:
        """Deliver what is offered until `stop`."""
        connector = guarded_connector(self._policy, resolver=self._resolver)
        try:
            async with (
                open_session(connector, timeout_s=self._timeout_s, user_agent=self._user_agent) as session,
                asyncio.TaskGroup() as group,
            ):
                group.create_task(self._claims.run())
                group.create_task(self._records.run())
                self._session, self._group = session, group
                self._start_sends()
                try:
                    await self._stopping.wait()
                finally:
                    self._stopping.set()  # also when the group fails: nothing may start in it any more
                await self._drain()
                self._claims.close()
                self._records.close()
        finally:
            self._ended.set()

    async def stop(self, grace_s: float) -> None:
        """End `run`: start nothing more, let what is being sent finish for `grace_s`, release the rest uncounted."""
        self._grace_s = grace_s
        self._stopping.set()
        if self._group is not None:
            await self._ended.wait()

    def _start_sends(self) -> None:
        """Start what the slots allow."""
        if self._group is None or self._stopping.is_set():
            return
        while len(self._sends) < self._slots and (taken := self._lanes.take()):
            self._idle.clear()
            number = next(self._numbers)
            self._sends[number] = self._group.create_task(self._send(number, *taken))

    async def _send(self, number: int, host: str, ref: Ref) -> None:
        """One ticket from its claim to its record, in a slot."""
        try:
            made = await self._ask(host, ref)
            if made is not None and await self._record(made.attempt, made.claimed_at + self._lease_s):
                _tell(made.attempt)
        except Exception:  # the job loop: one delivery's bug must not end the others; its lease will end
            log.exception("delivery.crashed", delivery_id=str(ref.id))
        finally:
            del self._sends[number]
            if not self._sends:
                self._idle.set()
        self._start_sends()

    async def _ask(self, host: str, ref: Ref) -> _Made | None:
        """Claim and send, in a slot of the host, which is free again before anything is recorded; None if not asked."""
        attempt: DeliveryAttempt | None = None
        try:
            held = self._held_already(ref) or await self._claim(ref)
            attempt = await self._attempt(held.delivery) if held else None
        finally:
            self._lanes.finish(host, was_slow=None if attempt is None else self._took_long(attempt))
        self._start_sends()
        return _Made(attempt, held.claimed_at) if held and attempt else None

    def _took_long(self, attempt: DeliveryAttempt) -> bool:
        return attempt.duration_ms > self._timeout_s * 1000 * SLOW_SHARE

    def _held_already(self, ref: Ref) -> _Held | None:
        """The claim that came with the ticket; None if it is too old to send under, and must be made anew."""
        held = self._held.pop(ref.id, None)
        is_good = held is not None and held.delivery.ref == ref and monotonic() - held.claimed_at < FRESH_S
        return held if is_good else None

    async def _claim(self, ref: Ref) -> _Held | None:
        claimed_at = monotonic()  # from before the claim: never later than the row says
        try:
            delivery = await self._claims.submit(ref)
        except PaymentsError as error:
            log.debug("delivery.ticket_dropped", delivery_id=str(ref.id), error=repr(error))  # it stays due
            return None
        return _Held(delivery, claimed_at) if delivery else None

    async def _attempt(self, delivery: ClaimedDelivery) -> DeliveryAttempt | None:
        """What came of it; None, and the claim is to be released, if a shutdown comes first."""
        if delivery.kind is DeliveryKind.ORDER:
            return await self._confirm(delivery)
        answer = await self._post(delivery)
        return self._judge(delivery, answer) if answer else None

    async def _confirm(self, delivery: ClaimedDelivery) -> DeliveryAttempt | None:
        """Tell the order service that the order is paid."""
        started = monotonic()
        if self._orders is None:
            confirmation = Confirmation(order_status=None, error="ORDER_SERVICE_URL is not set")
        elif self._is_aborting:
            self._unsent.append(delivery.ref)
            return None
        else:
            try:
                async with self._breakable():
                    confirmation = await self._confirm_in_time(self._orders, delivery)
            except TimeoutError:  # broken off: whoever comes next reads the order first
                self._unsent.append(delivery.ref)
                return None
        return DeliveryAttempt(
            delivery=delivery,
            outcome=self._judge_confirmation(delivery, confirmation),
            duration_ms=round((monotonic() - started) * 1000),
            status_code=confirmation.status_code,
            error=confirmation.error,
            response_body=confirmation.body,
        )

    async def _confirm_in_time(self, orders: OrderNotifier, delivery: ClaimedDelivery) -> Confirmation:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await orders.confirm(
                    delivery.order_id,
                    notes=f"Paid: payment {delivery.payment_id}",
                    correlation_id=delivery.correlation_id,
                )
        except TimeoutError:
            return Confirmation(order_status=None, error="no answer in time")

    def _judge_confirmation(self, delivery: ClaimedDelivery, confirmation: Confirmation) -> Outcome:
        if confirmation.error is None:
            return Delivered()
        if confirmation.order_status is OrderStatus.CANCELLED:
            return Conflict()
        return decide(
            None, retry_after_s=None, tries=delivery.tries, schedule=self._schedule, jitter=self._draw_jitter()
        )

    async def _post(self, delivery: ClaimedDelivery) -> Answer | None:
        """The receiver's answer; None, and the claim is to be released, if a shutdown comes first."""
        secret = self._secret(delivery)
        if secret is None:
            return Answer(error="the endpoint's secret cannot be decrypted: DATA_KEY has changed")
        if self._session is not None and not self._is_aborting:
            headers = headers_of(delivery, secret)
            try:
                async with self._breakable():
                    return await post(self._session, delivery.url, headers=headers, body=delivery.body)
            except TimeoutError:
                pass  # broken off; the receiver may have it, and knows it by its id when it comes again
        self._unsent.append(delivery.ref)
        return None

    @asynccontextmanager
    async def _breakable(self) -> AsyncIterator[None]:
        """Raises TimeoutError out of the block when a shutdown's grace is over."""
        async with asyncio.timeout(None) as scope:
            self._posting.add(scope)
            try:
                yield
            finally:
                self._posting.discard(scope)

    def _secret(self, delivery: ClaimedDelivery) -> str | None:
        if delivery.encrypted_secret is None:
            return self._vault.callback_secret(delivery.owner)
        try:
            return self._endpoint_secret(delivery.encrypted_secret)
        except InvalidToken:
            return None

    def _judge(self, delivery: ClaimedDelivery, answer: Answer) -> DeliveryAttempt:
        outcome = decide(
            answer.status,
            retry_after_s=parse_retry_after(answer.retry_after, delivery.claimed_at),
            tries=delivery.tries,
            schedule=self._schedule,
            jitter=self._draw_jitter(),
        )
        return DeliveryAttempt(
            delivery=delivery,
            outcome=outcome,
            duration_ms=answer.duration_ms,
            status_code=answer.status,
            error=answer.error,
            response_body=answer.body,
        )

    async def _record(self, attempt: DeliveryAttempt, lease_ends: float) -> bool:
        """Write the attempt down, insisting while the lease holds: what was sent must not be sent again for nothing."""
        pause_s = RECORD_PAUSE_S
        while True:
            try:
                is_recorded = await self._records.submit(attempt)
            except (DatabaseUnavailable, CommitUnknown) as error:
                if self._is_aborting or monotonic() + pause_s > lease_ends:
                    log.warning("delivery.unrecorded", error=repr(error), **_names(attempt.delivery))  # sent once more
                    return False
            else:
                if not is_recorded:  # claimed again or cancelled meanwhile, or a lost answer to our own COMMIT
                    log.info("delivery.superseded", status_code=attempt.status_code, **_names(attempt.delivery))
                return is_recorded
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RECORD_PAUSE_MAX_S)

    async def _drain(self) -> None:
        """Let open sends finish within the grace, break off the rest and give their claims back."""
        self._lanes.clear()
        self._unsent += [held.delivery.ref for held in self._held.values()]
        self._held.clear()
        await self._wait_until_idle(self._grace_s)
        self._is_aborting = True
        for scope in self._posting:
            scope.reschedule(asyncio.get_running_loop().time())
        await self._wait_until_idle(AFTERMATH_S)
        for task in self._sends.values():
            task.cancel()  # the database hangs; their leases will end
        await self._release()

    async def _wait_until_idle(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            log.info("delivery.still_open", count=self.in_flight)

    async def _release(self) -> None:
        if not self._unsent:
            return
        try:
            async with self._database.transaction() as connection:
                now = await self._database.clock.now(connection)
                released = await release(connection, now, self._unsent)
        except (DatabaseUnavailable, CommitUnknown) as error:
            log.warning("delivery.unreleased", count=len(self._unsent), error=repr(error))  # their leases will end
        else:
            log.info("delivery.released", count=released)


async def _record_attempts(
    connection: AsyncConnection, now: datetime, attempts: Sequence[DeliveryAttempt]
) -> list[bool]:
    """`record_attempts`, and in the same transaction the event for those whose order was cancelled meanwhile."""
    recorded = await record_attempts(connection, now, attempts)
    conflicts = {
        attempt.delivery.payment_id
        for attempt, is_recorded in zip(attempts, recorded, strict=True)
        if is_recorded and attempt.outcome == Conflict()
    }
    await events.tell_of_conflicts(connection, conflicts, now=now)
    return recorded


def _names(delivery: ClaimedDelivery) -> dict[str, str | int | None]:
    """What every log line about a delivery says; never its body, secret or URL."""
    return {
        "delivery_id": str(delivery.id),
        "payment_id": str(delivery.payment_id),
        "correlation_id": delivery.correlation_id,
        "attempt": delivery.attempt,
    }


def _tell(attempt: DeliveryAttempt) -> None:
    """Log and count what is recorded."""
    event, level = _event(attempt.outcome)
    details: dict[str, str | float | None] = {"status_code": attempt.status_code, "duration_ms": attempt.duration_ms}
    if attempt.error is not None:
        details["error"] = attempt.error
    if isinstance(attempt.outcome, TryAgain):
        details["wait_s"] = round(attempt.outcome.wait_s, 3)
    log.log(level, event, **_names(attempt.delivery), **details)
    metrics.deliveries.labels(attempt.delivery.kind, event.removeprefix("delivery.")).inc()
    metrics.delivery_seconds.observe(attempt.duration_ms / 1000)


def _event(outcome: Outcome) -> tuple[str, int]:
    """What happened, and how loudly it is said."""
    match outcome:
        case Delivered():
            return "delivery.delivered", logging.INFO
        case TryAgain():
            return "delivery.failed", logging.INFO
        case Exhausted():
            return "delivery.exhausted", logging.WARNING
        case Gone():
            return "delivery.gone", logging.WARNING
        case Conflict():
            return "delivery.conflict", logging.ERROR
        case _:
            assert_never(outcome)
