"""The figures of the overview: what the whole installation does now, and what is unwell.

They are made of what the service knows anyway: the live figures, the heartbeats, this process' own counters and the
health checks.
"""

import asyncio
from collections import deque
from time import monotonic
from typing import Any

import orjson

from api.dashboard.unwell import Unwell
from api.dashboard.windows import Window, quantiles
from api.state import Api
from api.stats import Snapshot
from shared import metrics
from shared.broker.heartbeats import WorkerStatus
from shared.errors import PaymentsError

# Seconds over which times and outcomes are taken.
TIMES_OVER_S, OUTCOMES_OVER_S = 10.0, 60.0
# Seconds of the charts that a new viewer gets at once, if somebody has watched before.
HISTORY_S = 180.0
QUANTILES = (0.5, 0.95, 0.99)
# The members of the figures that the charts need of the past.
CHARTED = ("accepted_per_s", "settled_per_s", "queue_depth", "in_gateway", "webhook_backlog")


class Overview:
    """Computes the events of the overview, one after the other."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._unwell = Unwell(api)
        self._accept_times = Window(TIMES_OVER_S)
        self._settle_times = Window(TIMES_OVER_S)
        self._outcomes = Window(OUTCOMES_OVER_S)
        self._past: deque[tuple[float, list[float | None]]] = deque()

    def before(self) -> bytes:
        """Return the past of the charts (JSON): pairs of an age in seconds and the values of CHARTED."""
        now = monotonic()
        return orjson.dumps({"members": CHARTED, "past": [[round(at - now, 2), values] for at, values in self._past]})

    async def compute(self) -> tuple[str, bytes]:
        """Return the next event: `figures`, or `unknown` while the database does not answer."""
        try:
            snapshot, unwell = await asyncio.gather(self._api.stats.snapshot(), self._unwell.current())
        except PaymentsError:
            # The page says so. What else is unwell is on the page of the system.
            return "unknown", b"{}"
        figures = self._figures(snapshot) | {"unwell": unwell}
        now = monotonic()
        self._past.append((now, [figures[name] for name in CHARTED]))
        while self._past[0][0] < now - HISTORY_S:
            self._past.popleft()
        return "figures", orjson.dumps(figures)

    def _figures(self, snapshot: Snapshot) -> dict[str, Any]:
        workers = snapshot.workers or []
        now = monotonic()
        self._accept_times.add(now, {"api": _numbered(metrics.bucket_counts(metrics.accept_seconds))})
        self._settle_times.add(now, {worker.worker: _numbered(worker.settle_counts) for worker in workers})
        self._outcomes.add(now, {worker.worker: worker.outcomes for worker in workers})
        slots = sum(worker.slots for worker in workers)
        figures = {name: value for name, value in snapshot.figures.items() if name != "workers"}
        return figures | {
            "in_gateway": sum(worker.in_gateway for worker in workers),
            "checking_orders": sum(worker.checking_orders for worker in workers),
            "sending": sum(worker.sending for worker in workers),
            "slots": slots,
            "capacity_per_s": round(slots / self._mean_delay_s, 1) if self._mean_delay_s else None,
            "accept_s": _quantiles(self._accept_times, metrics.LATENCY_BUCKETS_S),
            "settle_s": _quantiles(self._settle_times, metrics.SETTLE_BUCKETS_S),
            "outcomes": sorted(self._outcomes.sums().items(), key=lambda pair: -pair[1]),
            "outcomes_over_s": OUTCOMES_OVER_S,
            "workers": None if snapshot.workers is None else [_worker(worker) for worker in workers],
        }

    @property
    def _mean_delay_s(self) -> float:
        """The mean delay of the gateway, as this process' settings say."""
        settings = self._api.runtime.settings
        return (settings.payment_processing_delay_min + settings.payment_processing_delay_max) / 2000


def _numbered(counts: list[int]) -> dict[str, int]:
    return {str(index): count for index, count in enumerate(counts)}


def _quantiles(window: Window, bounds: tuple[float, ...]) -> dict[str, float | None]:
    sums = window.sums()
    counts = [sums.get(str(index), 0) for index in range(len(bounds) + 1)]
    return dict(zip(("p50", "p95", "p99"), quantiles(counts, bounds, QUANTILES), strict=True))


def _worker(worker: WorkerStatus) -> dict[str, Any]:
    return {
        "name": worker.worker,
        "slots": worker.slots,
        "busy": worker.in_gateway + worker.checking_orders,
        "sending": worker.sending,
        "settled_per_s": worker.settled_per_s,
        "uptime_s": worker.uptime_s,
        "version": worker.version or "0.1",
    }
