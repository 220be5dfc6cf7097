"""Puts a worker together and runs it. What it needs comes from a runtime; signals are the business of `cli`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from time import monotonic

import structlog
from aiohttp import web

from shared import metrics
from shared.breaker import Breaker
from shared.config import Settings
from shared.errors import ConfigurationError
from shared.leases import Ref
from shared.neighbour import Neighbour
from shared.queue import Publisher, Queue
from shared.runtime import Runtime
from shared.version import VERSION
from worker.deliver import Deliverer
from worker.gateway.ledger import Ledger
from worker.gateway.simulator import SimulatedGateway
from worker.hand import Hand
from worker.heartbeat import Heartbeat
from worker.jobs import JOBS_MAX, JobLoop
from worker.orders import OrderService
from worker.process_payments import Processor, Rules
from worker.relay import Relay

log = structlog.get_logger(__name__)

DRAIN_MARGIN_S = 2.0  # beside the gateway's longest delay: what is in the gateway at SIGTERM is finished
LEDGER_BATCH_MAX = 200
HEALTHY_WITHIN_S = 15.0  # the relay's last round is at most this old in a healthy worker


class WorkerProcess:
    """The parts of the hands, each a monitored task: one that dies takes the process with it."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        database = runtime.database
        self._runtime = runtime
        self._publisher = Publisher(runtime.carrier)
        self._ledger = Ledger(database, batch_max=LEDGER_BATCH_MAX, queue_max=2 * settings.worker_concurrency)
        gateway = SimulatedGateway(
            self._ledger,
            seed=settings.simulator_seed,
            success_rate=settings.payment_success_rate,
            failure_scenarios=settings.payment_failure_scenarios,
            delay_min_ms=settings.payment_processing_delay_min,
            delay_max_ms=settings.payment_processing_delay_max,
        )
        rules = Rules(
            concurrency=settings.worker_concurrency,
            lease_s=settings.lease_s,
            max_claims=settings.max_claims,
            gateway_tries_max=settings.gateway_tries_max,
            gateway_backoff_s=settings.gateway_backoff_s,
            is_seeded=settings.simulator_seed is not None,
            order_check_timeout_s=settings.order_check_timeout,
            order_backoff_s=settings.order_backoff_s,
        )
        self._order_service, orders = _order_service(settings)
        self.deliverer = Deliverer(database, runtime.vault, settings, version=VERSION, orders=orders)
        self.processor = Processor(database, gateway, self._publisher, rules, orders, sender=self.deliverer)
        self._hand = Hand(self.processor, runtime.carrier, slots=settings.worker_concurrency)
        self._heartbeat = Heartbeat(runtime.carrier, self.processor, self.deliverer, slots=settings.worker_concurrency)
        self._relay = Relay(
            database,
            runtime.carrier,
            interval_s=settings.relay_interval_s,
            batch_max=settings.relay_batch_max,
            retention_h=settings.idempotency_retention_h,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then drain: what is in the gateway is finished or released, and nothing is left behind."""
        settings = self._runtime.settings
        grace_s = settings.payment_processing_delay_max / 1000 + DRAIN_MARGIN_S
        async with (
            _served(self, settings.host, settings.metrics_port),
            self._order_service or contextlib.nullcontext(),
            asyncio.TaskGroup() as parts,
        ):
            carrying = [
                parts.create_task(self._ledger.run()),
                parts.create_task(self._publisher.run()),
            ]
            taking = [
                parts.create_task(self._relay.run()),
                parts.create_task(self._heartbeat.run()),
                *(parts.create_task(loop.run()) for loop in self._job_loops()),
            ]
            parts.create_task(self._hand.run())
            parts.create_task(self.processor.run())
            parts.create_task(self.deliverer.run())
            log.info("worker.started", slots=settings.worker_concurrency)
            await stop.wait()
            log.info("worker.draining", in_gateway=self.processor.in_gateway, sending=self.deliverer.in_flight)
            for task in taking:
                task.cancel()
            self._hand.close()
            await asyncio.gather(self.processor.stop(grace_s), self.deliverer.stop(grace_s))
            self._ledger.close()
            self._publisher.close()
            await asyncio.gather(*carrying)
        log.info("worker.stopped")

    @property
    def is_healthy(self) -> bool:
        """The relay has made a round lately: the loop turns and the database was asked."""
        return monotonic() - self._relay.ran_at < HEALTHY_WITHIN_S

    def _job_loops(self) -> tuple[JobLoop, JobLoop]:
        settings = self._runtime.settings
        url = settings.redis_url or ""
        return (
            JobLoop(
                url,
                Queue.PROCESS,
                self._hand.take,
                poll_delay_ms=settings.poll_delay_ms,
                gate=lambda: self.processor.free,
            ),
            JobLoop(url, Queue.DELIVER, self._deliver, poll_delay_ms=settings.poll_delay_ms, gate=lambda: JOBS_MAX),
        )

    async def _deliver(self, refs: list[Ref], _score_ms: int) -> None:
        await self.deliverer.offer(refs)


def _order_service(settings: Settings) -> tuple[Neighbour | None, OrderService | None]:
    """The order service's connections and what is done over them, if there is one."""
    if settings.order_service_url is None:
        return None, None
    name = "order_service"
    service = Neighbour(
        name,
        settings.order_service_url,
        timeout_s=settings.order_timeout_s,
        connections_max=settings.order_connections_max,
        breaker=Breaker(name, failures_max=settings.breaker_failures, open_s=settings.breaker_open_s),
    )
    return service, OrderService(
        service,
        secret=settings.jwt_secret_key.get_secret_value(),
        algorithm=settings.jwt_algorithm,
        not_found_after_s=settings.order_not_found_after_s,
        check_max_s=settings.order_check_max_s,
    )


@contextlib.asynccontextmanager
async def _served(worker: WorkerProcess, host: str, port: int) -> AsyncIterator[None]:
    """Serve /metrics and /health on METRICS_PORT, if it is set. Raises ConfigurationError if somebody else has it."""
    if port == 0:
        yield
        return

    async def exposition(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"healthy": worker.is_healthy}, status=200 if worker.is_healthy else 503)

    app = web.Application()
    app.add_routes([web.get("/metrics", exposition), web.get("/health", health)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigurationError(f"METRICS_PORT: cannot listen on {host}:{port}: {error.strerror}") from error
        yield
    finally:
        await runner.cleanup()
