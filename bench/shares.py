"""Measures of shares: what an attack on the delivery slots costs the receivers that are healthy.

`checkout` is the folder of the code that API and worker run, for a comparison with another revision.
"""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import orjson

from bench.figures import Found, at_least, at_most, below, percentiles_ms
from bench.hanging_receivers import HANGING_ADDRESSES, HANGING_NETWORK, SILENT
from bench.progress import print_step
from bench.stack import Stack, process, production
from cli.local.service import CHECKOUT, free_port, wait_until

# Payments end soon and all succeed, so that only the deliveries are measured.
QUICK_GATEWAY = {
    "PAYMENT_PROCESSING_DELAY_MIN": "50",
    "PAYMENT_PROCESSING_DELAY_MAX": "60",
    "PAYMENT_SUCCESS_RATE": "1",
}
START_TIMEOUT_S = 30
HEALTHY_PER_S = 20
# The attack may double the p99 of the healthy ones.
RATIO_MAX = 2.0
ATTACKER, HEALTHY = "1", "2"
HANGING_CALLBACKS, SILENT_NAMES = 1_000, 300
SLOW_ENDPOINTS, SLOW_PAYMENTS = 4, 500
BURST_ENDPOINTS, BURST_PAYMENTS = 20, 500
# Seconds without one arrival, in the middle of a burst.
GAP_MAX_S = 2.0
RECEIVERS = 100
DRAIN_MAX_S = 90
# Connections over which the payments of a burst are made.
CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Hostile:
    """The ports of a running `bench.hanging_receivers`."""

    quick_ports: list[int]
    hanging_port: int
    name_port: int

    @property
    def url(self) -> str:
        """The URL of the first receiver, without a path."""
        return f"http://127.0.0.1:{self.quick_ports[0]}"

    def take(self, what: str) -> list[float]:
        """Return the receiver's notes (`delays` or `arrivals`) since the last call."""
        notes: list[float] = orjson.loads(httpx.get(f"{self.url}/{what}", trust_env=False, timeout=30).content)
        return notes


@contextlib.contextmanager
def hanging_receivers(receivers: int = 1) -> Iterator[Hostile]:
    """Run `bench.hanging_receivers` until the block ends."""
    ports = Hostile([free_port() for _ in range(receivers)], free_port(), free_port())
    arguments = orjson.dumps([ports.quick_ports, ports.hanging_port, ports.name_port]).decode()
    command = [sys.executable, "-m", "bench.hanging_receivers", arguments]
    with (
        tempfile.TemporaryDirectory(prefix="payments-bench-") as folder,
        process(command, CHECKOUT, Path(folder) / "hanging_receivers.log"),
    ):
        wait_until(lambda: _answers(ports.url), timeout_s=START_TIMEOUT_S, what="the receivers answer")
        yield ports


def hanging_names(seconds: int) -> Found:
    """Measure healthy receivers while one user's callbacks go to names whose name server gives no answer."""

    def attack(payer: Payer, _ports: Hostile) -> None:
        for number in range(SILENT_NAMES):
            payer.pay(f"http://h{number}{SILENT}/")

    return _attacked(
        seconds,
        attack,
        healthy_url=lambda ports, number: f"http://good{number % 20}.test:{ports.quick_ports[0]}/quick",
    )


def hanging_server(seconds: int, *, checkout: Path = CHECKOUT) -> Found:
    """Measure a healthy receiver while one user's callbacks go to 200 addresses of a server that hangs."""

    def attack(payer: Payer, ports: Hostile) -> None:
        for number in range(HANGING_CALLBACKS):
            payer.pay(f"http://{HANGING_NETWORK}.{1 + number % HANGING_ADDRESSES}:{ports.hanging_port}/x")

    return _attacked(seconds, attack, checkout=checkout)


def slow_path(seconds: int, *, checkout: Path = CHECKOUT) -> Found:
    """Measure a quick path of a host while four endpoints on slow paths of the same host have a backlog."""

    def attack(payer: Payer, ports: Hostile) -> None:
        for number in range(SLOW_ENDPOINTS):
            payer.stack.register(f"{ports.url}/slow{number}")
        for _ in range(SLOW_PAYMENTS):
            payer.pay(None)

    return _attacked(seconds, attack, checkout=checkout)


def burst(_seconds: int, *, checkout: Path = CHECKOUT) -> Found:
    """Measure ten thousand deliveries at once to one fast host."""
    found = Found()
    with hanging_receivers() as ports, production(QUICK_GATEWAY, checkout=checkout) as stack:
        arrivals = _deliver(stack, ports, [ports.url] * BURST_ENDPOINTS, BURST_PAYMENTS)
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    found.add(
        f"deliveries of {BURST_ENDPOINTS * BURST_PAYMENTS:,} that arrived",
        len(arrivals),
        goal=at_least(BURST_ENDPOINTS * BURST_PAYMENTS),
    )
    found.add("  the longest time without an arrival", max(gaps), "s", goal=below(GAP_MAX_S), digits=2)
    found.add("  from the first to the last", arrivals[-1] - arrivals[0], "s", digits=1)
    return found


def deliveries(_seconds: int, *, checkout: Path = CHECKOUT) -> Found:
    """Measure deliveries per second to one fast receiver, and to a hundred."""
    found = Found()
    for receivers, endpoints, payments in ((1, 4, 480), (RECEIVERS, RECEIVERS, 100)):
        with hanging_receivers(receivers) as ports, production(QUICK_GATEWAY, checkout=checkout) as stack:
            urls = [f"http://127.0.0.1:{ports.quick_ports[number % receivers]}" for number in range(endpoints)]
            arrivals = _deliver(stack, ports, urls, payments)
        found.add(f"deliveries/s to {receivers} fast", len(arrivals) / (arrivals[-1] - arrivals[0]))
        found.add("  arrived", len(arrivals), goal=at_least(endpoints * payments))
    return found


@dataclass(slots=True)
class Payer:
    """A user that pays."""

    stack: Stack
    client: httpx.Client
    method: str
    _orders: Iterator[int] = field(default_factory=count)

    def pay(self, callback_url: str | None) -> None:
        """Pay once. Raises httpx.HTTPStatusError if that is refused."""
        intent: dict[str, Any] = {
            "order_id": f"{self.method}-{next(self._orders)}",
            "payment_method_id": self.method,
            "amount": 1000,
            "callback_url": callback_url,
        }
        self.client.post("/payments", json=intent).raise_for_status()


@contextlib.contextmanager
def _payer(stack: Stack, user: str) -> Iterator[Payer]:
    with stack.payer(user) as client:
        yield Payer(stack, client, stack.methods(user)[0])


def _attacked(
    seconds: int,
    attack: Callable[[Payer, Hostile], None],
    *,
    checkout: Path = CHECKOUT,
    healthy_url: Callable[[Hostile, int], str] = lambda ports, _number: f"{ports.url}/quick",
) -> Found:
    """Compare the delays of a healthy user's webhooks before and during an attack by another user."""
    found = Found()
    with hanging_receivers() as ports:
        servers = {"WEBHOOK_NAME_SERVERS": f"127.0.0.1:{ports.name_port}"}
        with (
            production(QUICK_GATEWAY | servers, checkout=checkout) as stack,
            _payer(stack, ATTACKER) as bad,
            _payer(stack, HEALTHY) as good,
        ):

            def measure(run_s: int) -> list[float]:
                urls = [healthy_url(ports, number) for number in range(run_s * HEALTHY_PER_S)]
                return _healthy(good, ports, urls)

            measure(3)
            without = measure(seconds)
            print_step("the attack")
            attack(bad, ports)
            under = measure(seconds)
    expected = seconds * HEALTHY_PER_S
    before, after = percentiles_ms(without), percentiles_ms(under)
    found.add("healthy webhooks under attack that arrived, part", len(under) / expected, goal=at_least(1), digits=3)
    found.add("  end of the payment to webhook, p50 without", before[50], "ms", digits=1)
    found.add("  ... p50 under attack", after[50], "ms", digits=1)
    found.add("  ... p99 without", before[99], "ms", digits=1)
    found.add("  ... p99 under attack", after[99], "ms", digits=1)
    found.add("  p99, under attack : without", after[99] / before[99], "x", goal=at_most(RATIO_MAX), digits=2)
    return found


def _healthy(payer: Payer, ports: Hostile, urls: list[str]) -> list[float]:
    """Pay at a fixed rate with these callbacks, and return the seconds from the end of each payment to its webhook."""
    ports.take("delays")
    due = monotonic()
    for url in urls:
        payer.pay(url)
        due += 1 / HEALTHY_PER_S
        sleep(max(0.0, due - monotonic()))
    delays: list[float] = []
    deadline = monotonic() + DRAIN_MAX_S
    while len(delays) < len(urls) and monotonic() < deadline:
        sleep(0.5)
        delays += ports.take("delays")
    return delays


def _deliver(stack: Stack, ports: Hostile, urls: list[str], payments: int) -> list[float]:
    """Let each URL have an endpoint, pay, and return the Unix times at which the webhooks arrived, in order."""
    for number, url in enumerate(urls):
        stack.register(f"{url}/hook{number}")
    with _payer(stack, ATTACKER) as payer, ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(payer.pay, [None] * payments))
    arrivals: list[float] = []
    deadline = monotonic() + DRAIN_MAX_S
    while len(arrivals) < len(urls) * payments and monotonic() < deadline:
        sleep(0.5)
        arrivals += ports.take("arrivals")
    return sorted(arrivals)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/arrivals", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False
