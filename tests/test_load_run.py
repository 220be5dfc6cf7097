"""The load keeps its pace whatever the service does, and finds what was lost or charged twice."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from cli.load.checks import LoadVerdict, judge_histories
from cli.load.client import open_api
from cli.load.plan import Plan
from cli.load.progress import Progress
from cli.load.report import document, exit_code, verdict_lines
from cli.load.run import Bounds, Run
from cli.load.sender import prepare
from cli.load.targets import Target
from cli.local.service import free_port
from shared.ids import new_id
from tests.support.loads import MIX, a_history, a_plan, shown


@dataclass
class Misbehaving:
    """Just enough of the API, with faults."""

    ends_as: str = "COMPLETED"
    # So many POSTs are done and not answered.
    loses_answers: int = 0
    overloaded_from: int = 10**9
    charges_twice: bool = False
    forgets: bool = False
    hangs: bool = False
    posts: list[str] = field(default_factory=list)  # idempotency keys
    payments: dict[str, dict[str, Any]] = field(default_factory=dict)  # by key
    questions: int = 0

    async def pay(self, request: web.Request) -> web.StreamResponse:
        key = request.headers["Idempotency-Key"]
        self.posts.append(key)
        if self.hangs:
            await asyncio.sleep(2)
        if len(self.posts) >= self.overloaded_from:
            return web.json_response({"code": "overloaded"}, status=503)
        content = await request.json()
        if key not in self.payments:
            self.payments[key] = self._made(content["order_id"])
            if self.charges_twice:
                self.payments[key + "-again"] = self._made(content["order_id"])
        if self.loses_answers > 0:
            self.loses_answers -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(self.payments[key] | {"status": "PENDING", "processed_at": None}, status=202)

    def _made(self, order_id: str) -> dict[str, Any]:
        now = datetime.now(UTC)
        return shown(order_id, self.ends_as, payment_id=str(new_id())) | {
            "created_at": now.isoformat(),
            "processed_at": now.isoformat() if self.ends_as in {"COMPLETED", "FAILED"} else None,
        }

    async def list_them(self, _request: web.Request) -> web.Response:
        self.questions += 1
        return web.json_response(
            {"payments": [] if self.forgets else list(self.payments.values()), "next_cursor": None}
        )

    async def show(self, request: web.Request) -> web.Response:
        found = [one for one in self.payments.values() if one["id"] == request.match_info["id"] and not self.forgets]
        return web.json_response(found[0]) if found else web.json_response({"code": "not_found"}, status=404)

    async def history(self, _request: web.Request) -> web.Response:
        return web.json_response({"history": a_history("PENDING", "PROCESSING", self.ends_as)})

    async def figures(self, _request: web.Request) -> web.Response:
        return web.json_response({"code": "forbidden"}, status=403)

    async def add_method(self, _request: web.Request) -> web.Response:
        return web.json_response({"id": str(new_id()), "user_id": "1"}, status=201)


@asynccontextmanager
async def loaded(service: Misbehaving, plan: Plan, bounds: Bounds) -> AsyncIterator[Progress]:
    """What a run against the service comes to."""
    application = web.Application()
    application.add_routes(
        [
            web.post("/api/v1/payment-methods", service.add_method),
            web.post("/api/v1/payments", service.pay),
            web.get("/api/v1/payments", service.list_them),
            web.get("/api/v1/payments/{id}", service.show),
            web.get("/api/v1/payments/{id}/history", service.history),
            web.get("/api/v1/stats", service.figures),
        ]
    )
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        target = Target(url=f"http://127.0.0.1:{runner.addresses[0][1]}", words="a fake", payers=("t",), watcher="t")
        async with open_api(target.url, connections_max=200) as api:
            payers = await prepare(target, api, list(MIX))
            run = Run(plan, target, api, bounds=bounds)
            yield await run.go(payers, asyncio.Event())
    finally:
        await runner.cleanup()


SHORT = a_plan(rate=60, duration_s=1)
QUICK = Bounds(stalled_max_s=0.5, drain_max_s=3)


async def test_a_clean_run_is_counted_and_judged() -> None:
    service = Misbehaving()
    async with loaded(service, SHORT, QUICK) as progress:
        counts = progress.request_counts
        assert (counts.offered, counts.accepted, progress.payment_tally.settled) == (60, 60, 60)
        assert progress.verdict.is_clean
        assert exit_code(progress) == 0
        assert len(set(service.posts)) == len(service.posts) == 60
        report = document(progress)
    assert report["requests"]["accepted"] == 60
    assert report["outcomes"] == [{"status": "COMPLETED", "failure_code": None, "payments": 60}]
    assert json.loads(json.dumps(report)) == report


async def test_the_verdict_about_a_target_says_what_was_not_looked_at() -> None:
    async with loaded(Misbehaving(), SHORT, QUICK) as progress:
        hidden = progress.verdict.not_looked_at
    assert len(hidden) == 2
    assert hidden[0].startswith("the gateway's ledger")
    assert hidden[1].startswith("the webhooks")
    assert document(progress)["verdict"]["not_looked_at"] == hidden
    words = [words for words, _style in verdict_lines(progress)]
    assert words[0] == "No payment was lost, and none was charged twice, as far as was looked."
    assert [line for line in words if "Not looked at" in line] == [f"  Not looked at: {each}." for each in hidden]
    progress.verdict.not_looked_at = []
    assert verdict_lines(progress)[0][0] == "No payment was lost, and none was charged twice."


async def test_a_history_that_was_not_answered_is_not_counted_as_sound() -> None:
    service, verdict = Misbehaving(), LoadVerdict()
    nowhere = f"http://127.0.0.1:{free_port()}"
    async with loaded(service, SHORT, QUICK) as progress, open_api(nowhere, connections_max=10) as nobody:
        await judge_histories(nobody, "t", progress.payment_tally, verdict)
    assert verdict.compared == ["0 of their histories: each has no gaps and one end"]
    assert verdict.not_looked_at == ["60 histories that were asked for and not answered"]
    assert verdict.is_clean


async def test_a_lost_answer_is_asked_for_again_with_the_same_key_and_nothing_is_paid_twice() -> None:
    service = Misbehaving(loses_answers=5)
    async with loaded(service, SHORT, QUICK) as progress:
        assert progress.request_counts.repeated == 5
        assert progress.request_counts.accepted == 60
        assert len(set(service.posts)) == 60 < len(service.posts)
        assert exit_code(progress) == 0


async def test_a_request_that_is_twice_not_answered_is_looked_up_in_the_end() -> None:
    service = Misbehaving(loses_answers=10**9)
    async with loaded(service, a_plan(rate=10, duration_s=1), QUICK) as progress:
        counts = progress.request_counts
        assert (counts.accepted, counts.unanswered, counts.repeated) == (0, 10, 10)
        assert progress.payment_tally.found_after_all() == 10, "they were written down, and they ended"
        assert exit_code(progress) == 0


async def test_an_overloaded_service_slows_no_arrival_down_and_is_not_asked_again() -> None:
    service = Misbehaving(overloaded_from=21)
    async with loaded(service, SHORT, QUICK) as progress:
        assert progress.request_counts.refused == {"503 overloaded": 40}
        counts = progress.request_counts
        assert (counts.accepted, counts.repeated, len(service.posts)) == (20, 0, 60)
        assert exit_code(progress) == 0


async def test_what_cannot_be_sent_is_counted_and_never_queued() -> None:
    service = Misbehaving(hangs=True)
    async with loaded(service, SHORT, replace(QUICK, open_max=5)) as progress:
        assert progress.request_counts.offered == 60, "arrivals come by the clock alone"
        assert progress.request_counts.not_sent == {"5 requests were open": 55}
        assert len(service.posts) == progress.request_counts.sent == progress.request_counts.accepted == 5


async def test_a_payment_that_never_ends_is_lost() -> None:
    async with loaded(Misbehaving(ends_as="PROCESSING"), a_plan(rate=5, duration_s=1), QUICK) as progress:
        assert [(broken.count, "never ended" in broken.words) for broken in progress.verdict.broken] == [(5, True)]
        assert exit_code(progress) == 1


async def test_a_payment_that_the_service_has_forgotten_is_lost() -> None:
    async with loaded(Misbehaving(forgets=True), a_plan(rate=5, duration_s=1), QUICK) as progress:
        assert [broken.words for broken in progress.verdict.broken] == [
            "A payment was accepted, and later the API did not know it."
        ]
        assert exit_code(progress) == 1


async def test_an_order_that_is_paid_twice_is_found() -> None:
    async with loaded(Misbehaving(charges_twice=True), a_plan(rate=5, duration_s=1), QUICK) as progress:
        assert [(broken.words, broken.count) for broken in progress.verdict.broken] == [
            ("An order has more than one live payment.", 5)
        ]
        assert exit_code(progress) == 1


async def test_asking_costs_a_fraction_of_the_load() -> None:
    service = Misbehaving()
    async with loaded(service, SHORT, QUICK):
        assert service.questions <= 5


async def test_a_run_in_which_nothing_was_accepted_is_no_success() -> None:
    async with loaded(Misbehaving(overloaded_from=0), a_plan(rate=5, duration_s=1), QUICK) as progress:
        assert progress.verdict.is_clean
        assert exit_code(progress) == 1
