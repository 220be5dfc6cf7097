"""Builds a worker from a runtime and runs it until it is stopped.

It handles no signals: the commands in `cli` do.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from time import monotonic

import structlog

from shared.broker.client import Queue
from shared.broker.publisher import Publisher
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.probe import is_usable
from shared.gateway_calls import RepeatableKeys
from shared.runtime import Runtime
from shared.upstream.breaker import Breaker
from shared.upstream.client import UpstreamClient
from shared.version import VERSION
from worker.arq_loop import JOBS_MAX, Gate, Job, JobLoop
from worker.deliveries.attempt import AttemptMaker
from worker.deliveries.pool import DeliveryPool, DeliveryRules
from worker.deliveries.service_addresses import ServiceAddresses
from worker.gateway.ledger import Ledger
from worker.gateway.notifier import open_notifier
from worker.gateway.rule_book import RuleBook
from worker.gateway.simulator import SimulatedGateway
from worker.health import Check, serving_health
from worker.heartbeat import Heartbeat, name_worker
from worker.orders import OrderService
from worker.payments.charge import Charger
from worker.prefetch import PrefetchBuffer
from worker.processor import Processor
from worker.purge import Purge
from worker.queue_watch import QueueWatch
from worker.refunds.repay import Repayer
from worker.relay import Relay
from worker.rules import ChargeRules
from worker.service_timer import ServiceTimer
from worker.verifier import Verifier

log = structlog.get_logger(__name__)

# Seconds of the shutdown's grace period beyond the gateway's longest delay and the longest attempt to deliver: payments
# that are in the gateway at SIGTERM, and deliveries that are being sent, are finished.
DRAIN_MARGIN_S = 2.0
# Ledger entries in one transaction.
LEDGER_BATCH_MAX = 200
# Seconds: in a healthy worker the relay's last round ended at most so long ago.
HEALTHY_WITHIN_S = 15.0


class WorkerProcess:
    """One worker with all its parts. Each part is a monitored task: if one fails, the process ends."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        database = runtime.database
        self._runtime = runtime
        name = name_worker()
        self._publisher = Publisher(runtime.broker)
        self._ledger = Ledger(database, batch_max=LEDGER_BATCH_MAX, queue_max=2 * settings.worker_concurrency)
        self._timer = timer = ServiceTimer(database, runtime.broker)
        self.notifier = open_notifier(
            settings, runtime.keyring, clock=timer.now_s, real_s=timer.real_s, shown_now=timer.now
        )
        timer.when_changed(self.notifier.look_again, lambda: self.notifier.next_due_s)
        self._order_client, orders = _open_order_service(settings)
        self._rule_book = _open_rule_book(settings, database)
        gateway, rules = self._open_gateway(), _charge_rules(settings)
        charger = Charger(gateway, rules, orders)
        self._service_addresses = ServiceAddresses(settings.services_closed_to_users)
        self.pool = open_pool(runtime, orders, self._service_addresses, hold_clock=timer.now_s)
        self.processor = Processor(
            database,
            charger,
            self._publisher,
            repayer=Repayer(gateway, rules),
            cancels_orders=settings.cancels_orders,
            concurrency=settings.worker_concurrency,
            lease_s=settings.lease_s,
            sender=self.pool,
            worker=name,
        )
        self._prefetch = [
            PrefetchBuffer(self.processor, runtime.broker, queue, slots=settings.worker_concurrency)
            for queue in (Queue.PROCESS, Queue.REFUND)
        ]
        self._heartbeat = Heartbeat(
            runtime.broker, self.processor, self.pool, worker=name, slots=settings.worker_concurrency
        )
        self._relay = Relay(
            database,
            runtime.broker,
            interval_s=settings.relay_interval_s,
            batch_max=settings.relay_batch_max,
        )
        self._purge = Purge(database, retention_h=settings.idempotency_retention_h)
        self._verifier = Verifier(settings, runtime.broker, worker=name)
        self._watch = QueueWatch(runtime.broker)
        self._job_loops = self._open_job_loops()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain: finish what is in the gateway and what is being sent, or release it.

        Raises ConfigurationError if METRICS_PORT is in use, and an ExceptionGroup if a part fails.
        """
        settings = self._runtime.settings
        payments_grace_s = settings.payment_processing_delay_max / 1000 + DRAIN_MARGIN_S
        deliveries_grace_s = settings.webhook_timeout + DRAIN_MARGIN_S
        async with (
            serving_health(
                settings.host, settings.metrics_port, is_healthy=lambda: self.is_healthy, checks=self._checks()
            ),
            self._order_client or contextlib.nullcontext(),
            asyncio.TaskGroup() as parts,
        ):
            publishing = [
                parts.create_task(self._ledger.run()),
                *([parts.create_task(self._rule_book.run())] if self._rule_book else []),
                parts.create_task(self._publisher.run()),
            ]
            intake = [
                parts.create_task(self._relay.run()),
                parts.create_task(self._heartbeat.run()),
                parts.create_task(self._service_addresses.run()),
                parts.create_task(self._purge.run()),
                parts.create_task(self._verifier.run()),
                parts.create_task(self.notifier.run()),
                parts.create_task(self._timer.run()),
                parts.create_task(self._watch.run()),
                *(parts.create_task(loop.run()) for loop in self._job_loops),
            ]
            for buffer in self._prefetch:
                parts.create_task(buffer.run())
            parts.create_task(self.processor.run())
            parts.create_task(self.pool.run())
            log.info("worker.started", slots=settings.worker_concurrency)
            await stop.wait()
            log.info(
                "worker.draining",
                in_gateway=self.processor.in_gateway,
                checking_orders=self.processor.checking_orders,
                sending=self.pool.in_flight,
            )
            for task in intake:
                task.cancel()
            for buffer in self._prefetch:
                buffer.close()
            await asyncio.gather(self.processor.stop(payments_grace_s), self.pool.stop(deliveries_grace_s))
            self._ledger.close()
            if self._rule_book:
                self._rule_book.close()
            self._publisher.close()
            await asyncio.gather(*publishing)
        log.info("worker.stopped")

    @property
    def is_healthy(self) -> bool:
        """The relay has ended a round lately, so the event loop runs and the database was asked."""
        return monotonic() - self._relay.ran_at < HEALTHY_WITHIN_S

    def _checks(self) -> dict[str, Check]:
        """Return the checks of readiness: what this worker needs to take a payment and to end it."""

        async def queues() -> bool:
            return all(loop.is_polling for loop in self._job_loops)

        return {
            "database": lambda: is_usable(self._runtime.database),
            "redis": self._runtime.broker.probe,
            "queues": queues,
        }

    def _open_job_loops(self) -> list[JobLoop]:
        return [
            *(self._job_loop(buffer.queue, buffer.take, gate=lambda: self.processor.free) for buffer in self._prefetch),
            self._job_loop(Queue.DELIVER, self._deliver, gate=lambda: JOBS_MAX),
        ]

    def _job_loop(self, queue: Queue, job: Job, *, gate: Gate) -> JobLoop:
        url, poll_delay_ms = self._runtime.settings.redis_url or "", self._runtime.settings.poll_delay_ms
        return JobLoop(url, queue, job, poll_delay_ms=poll_delay_ms, gate=gate, news=self._watch.news_of(queue))

    def _open_gateway(self) -> SimulatedGateway:
        settings = self._runtime.settings
        return SimulatedGateway(
            self._ledger,
            seed=settings.simulator_seed,
            rules=self._rule_book,
            seed_keys=None if settings.simulator_seed is None else RepeatableKeys(self._runtime.database),
            success_rate=settings.payment_success_rate,
            failure_scenarios=settings.payment_failure_scenarios,
            delay_min_ms=settings.payment_processing_delay_min,
            delay_max_ms=settings.payment_processing_delay_max,
            slow_max_ms=settings.steered_delay_max_ms,
            sleep=self._timer.sleep,
            notify_later=self.notifier.schedule,
        )

    async def _deliver(self, items: list[WorkItem], _score_ms: int) -> None:
        await self.pool.offer(items)


def _open_rule_book(settings: Settings, database: Database) -> RuleBook | None:
    """Return the rules of admins; None where SIMULATION is off, and none fires."""
    if not settings.is_simulation_on:
        return None
    return RuleBook(
        database,
        seed=settings.simulator_seed or "",
        batch_max=LEDGER_BATCH_MAX,
        queue_max=2 * settings.worker_concurrency,
    )


def _charge_rules(settings: Settings) -> ChargeRules:
    return ChargeRules(
        max_claims=settings.max_claims,
        gateway_tries_max=settings.gateway_tries_max,
        gateway_backoff_s=settings.gateway_backoff_s,
        order_check_timeout_s=settings.order_check_timeout,
        order_backoff_s=settings.order_backoff_s,
        action_valid_s=settings.action_expires_s,
        card_valid_s=settings.authorization_valid_s_card,
        paypal_valid_s=settings.authorization_valid_s_paypal,
    )


def open_pool(
    runtime: Runtime,
    orders: OrderService | None = None,
    addresses: ServiceAddresses | None = None,
    *,
    hold_clock: Callable[[], float] = monotonic,
) -> DeliveryPool:
    """Return the delivery pool of a runtime. It sends nothing before `run`. Without `orders` no order is updated.

    `addresses` are those of our own services. Where an address is not known, its port is closed at every address that
    is not public. The pauses that receivers ask for are counted by `hold_clock` (in seconds).
    """
    settings = runtime.settings
    attempts = AttemptMaker(
        runtime.keyring,
        timeout_s=settings.webhook_timeout,
        schedule_s=settings.webhook_retry_schedule,
        orders=orders,
    )
    rules = DeliveryRules(
        concurrency=settings.webhook_concurrency,
        concurrency_per_host=settings.webhook_concurrency_per_host,
        timeout_s=settings.webhook_timeout,
        lease_s=settings.webhook_lease_s,
        user_agent=f"payments/{VERSION}",
        name_servers=settings.webhook_name_servers,
    )
    known = addresses.known if addresses else {}
    policy, user_policy = (
        replace(each, addresses=known, closes_unknown=True)
        for each in (runtime.address_policy, runtime.user_address_policy)
    )
    return DeliveryPool(
        runtime.database,
        attempts,
        rules,
        policy,
        user_policy=user_policy,
        refunds_conflicts=settings.order_conflict == "refund",
        hold_clock=hold_clock,
    )


def _open_order_service(settings: Settings) -> tuple[UpstreamClient | None, OrderService | None]:
    """Return the client of the order service, and the service over it; None for both without ORDER_SERVICE_URL."""
    if settings.order_service_url is None:
        return None, None
    name = "order_service"
    client = UpstreamClient(
        name,
        settings.order_service_url,
        timeout_s=settings.order_timeout_s,
        connections_max=settings.order_connections_max,
        breaker=Breaker(name, failures_max=settings.breaker_failures, open_s=settings.breaker_open_s),
    )
    return client, OrderService(
        client,
        secret=settings.jwt_secret_key.get_secret_value(),
        algorithm=settings.jwt_algorithm,
        not_found_after_s=settings.order_not_found_after_s,
        check_max_s=settings.order_check_max_s,
    )
