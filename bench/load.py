"""The load generator, in its own process: POSTs intents at a fixed rate, or over many connections without a pause.

With `steps` in the plan it POSTs to these paths below that of the payments instead, once to each.
"""

import asyncio
import sys
from datetime import datetime
from pathlib import Path
from time import perf_counter, process_time, time
from typing import Any
from urllib.parse import urlsplit

import orjson

from bench.client import Client

REQUEST_TIMEOUT_S = 30
ACCEPTED, OVERLOADED = {"201", "202"}, 503
RATE_MAX, DURATION_MAX_S, CONNECTIONS_MAX = 5000, 300, 2000


class Load:
    """One run of a plan. With a `rate` intents arrive at that rate; otherwise each connection sends without a pause."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._url = urlsplit(plan["url"])
        self._headers: dict[str, str] = {"Authorization": f"Bearer {plan['token']}", "Content-Type": "application/json"}
        if wait_s := plan.get("wait_s"):
            self._headers["Prefer"] = f"wait={wait_s}"
        self._methods: list[str] = plan["methods"]
        self._run: str = plan["run"]
        self._connections = min(plan["connections"], CONNECTIONS_MAX)
        self._duration_s = min(plan["duration_s"], DURATION_MAX_S)
        self._rate = min(plan.get("rate") or 0, RATE_MAX)
        # Members that every intent has in addition.
        self._members: dict[str, Any] = plan.get("members", {})
        self._steps: list[str] | None = plan.get("steps")
        self._order = 0
        self._without_retry_after = 0
        self.latencies_s: list[float] = []
        self.statuses: dict[str, int] = {}
        self.accepted: dict[str, float] = {}
        # For each request: seconds from the start until it was sent, its status, and its latency in seconds.
        self.answers: list[tuple[float, str, float]] = []
        # Seconds from the end of a payment, as the answer gives it, to the answer that was held until then.
        self.held_s: list[float] = []
        self._started = 0.0

    async def run(self) -> dict[str, Any]:
        """Run the load and return its results. Durations are in seconds."""
        host, port = self._url.hostname or "", self._url.port or 80
        client = Client(host, port, self._url.path, self._headers, connections=self._connections)
        self._started, cpu = perf_counter(), process_time()
        until = self._started + self._duration_s
        if self._rate:
            await self._paced(client, until)
        else:
            async with asyncio.TaskGroup() as clients:
                for _ in range(self._connections):
                    clients.create_task(self._without_pause(client, until))
        took_s = perf_counter() - self._started
        client.close()
        return {
            "took_s": took_s,
            "cpu_share": (process_time() - cpu) / took_s,
            "statuses": self.statuses,
            "latencies_s": self.latencies_s,
            "accepted": self.accepted,
            "answers": self.answers,
            "held_s": self.held_s,
            "without_retry_after": self._without_retry_after,
        }

    async def _without_pause(self, client: Client, until: float) -> None:
        while perf_counter() < until and self._steps != []:
            await self._post(client)

    async def _paced(self, client: Client, until: float) -> None:
        async with asyncio.TaskGroup() as arrivals:
            due = perf_counter()
            while due < until and self._steps != []:
                arrivals.create_task(self._post(client))
                due += 1 / self._rate
                await asyncio.sleep(max(0.0, due - perf_counter()))

    async def _post(self, client: Client) -> None:
        below, body = ("", self._intent()) if self._steps is None else (self._steps.pop(), b"{}")
        started = perf_counter()
        try:
            answer = await client.post(body, below=below, timeout_s=REQUEST_TIMEOUT_S)
        # TimeoutError is an OSError.
        except OSError as error:
            status, content = type(error).__name__, b""
        else:
            status, content = str(answer.status), answer.body
            self._without_retry_after += answer.status == OVERLOADED and not answer.has_retry_after
        latency_s = perf_counter() - started
        self.latencies_s.append(latency_s)
        self.answers.append((started - self._started, status, latency_s))
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status in ACCEPTED:
            now, payment = time(), orjson.loads(content)
            self.accepted[payment["id"]] = now
            if payment.get("processed_at"):
                self.held_s.append(now - datetime.fromisoformat(payment["processed_at"]).timestamp())

    def _intent(self) -> bytes:
        self._order += 1
        intent = {
            "order_id": f"{self._run}-{self._order}",
            "payment_method_id": self._methods[self._order % len(self._methods)],
            "amount": 1000 + self._order % 9000,
        }
        return orjson.dumps(intent | self._members)


def main() -> None:
    """Read a plan from the file in the first argument, run it, and write the results to that in the second."""
    import uvloop  # noqa: PLC0415 - only the process that runs the load needs it

    plan_file, result_file = map(Path, sys.argv[1:3])
    result_file.write_bytes(orjson.dumps(uvloop.run(Load(orjson.loads(plan_file.read_bytes())).run())))


if __name__ == "__main__":
    main()
