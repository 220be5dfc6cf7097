"""The load keeps its pace whatever the server does, counts honestly, and finds what was lost or charged twice."""

import asyncio
import itertools
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from sqlalchemy import insert

from cli.load.checks import HISTORIES_MAX, LoadVerdict, choose_histories, judge_histories, judge_ledger, tells_one_end
from cli.load.client import open_api
from cli.load.command import Options, run_load
from cli.load.payment_tally import PaymentTally, settled_per_s
from cli.load.plan import (
    AMOUNT_MAX,
    AMOUNT_MIN,
    BURST_EVERY_S,
    RATE_MAX,
    Plan,
    Refused,
    parse_mix,
    refuse_absurd,
)
from cli.load.progress import Progress
from cli.load.report import document, exit_code, settled_by_second, verdict_lines
from cli.load.request_counts import RequestCounts, Spread, spread
from cli.load.run import Bounds, Run
from cli.load.sender import prepare
from cli.load.targets import Target, remote_target
from cli.local.service import free_port
from cli.options import Shape
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.tables import gateway_ledger
from shared.ids import new_id
from shared.lifecycle import MethodType, PaymentStatus
from shared.verify.breaches import BreachKind
from shared.verify.kinds import KINDS
from tests.support.loads import MIX, a_plan, shown
from tests.support.rows import accepted, write

# -- the plan


@pytest.mark.parametrize("shape", Shape)
@pytest.mark.parametrize(("rate", "duration_s"), [(20, 10), (7.5, 3), (300, 12.5)])
def test_arrivals_come_in_order_within_the_time_and_about_as_many_as_meant(
    shape: Shape, rate: float, duration_s: float
) -> None:
    plan = a_plan(shape=shape, rate=rate, duration_s=duration_s)
    arrivals = list(plan.arrivals_s())
    assert all(0 <= at_s < duration_s for at_s in arrivals)
    assert all(later >= earlier for earlier, later in itertools.pairwise(arrivals))
    slack = 5 * plan.expected**0.5 if shape is Shape.POISSON else 1
    assert abs(len(arrivals) - plan.expected) <= slack


def test_steady_arrivals_have_the_same_distance() -> None:
    assert list(a_plan(rate=4, duration_s=1.5).arrivals_s()) == [0, 0.25, 0.5, 0.75, 1, 1.25]


def test_a_ramp_ends_at_the_rate() -> None:
    arrivals = list(a_plan(shape=Shape.RAMP, rate=100, duration_s=10).arrivals_s())
    assert sum(1 for at_s in arrivals if at_s < 1) == 5
    assert sum(1 for at_s in arrivals if at_s >= 9) == 95


def test_a_burst_brings_five_seconds_in_one() -> None:
    arrivals = list(a_plan(shape=Shape.BURST, rate=10, duration_s=12).arrivals_s())
    by_second = Counter(int(at_s) for at_s in arrivals)
    assert by_second == {0: 50, BURST_EVERY_S: 50, 2 * BURST_EVERY_S: 20}


def test_poisson_arrivals_are_not_steady_and_repeat_with_their_seed() -> None:
    plan = a_plan(shape=Shape.POISSON)
    gaps = [later - earlier for earlier, later in itertools.pairwise(plan.arrivals_s())]
    assert min(gaps) < 0.5 / plan.rate < 2 / plan.rate < max(gaps)
    assert list(plan.arrivals_s()) == list(plan.arrivals_s())
    assert list(plan.arrivals_s()) != list(a_plan(shape=Shape.POISSON, seed="other").arrivals_s())


def test_the_same_seed_makes_the_same_intents_in_the_mix_that_was_asked_for() -> None:
    intents = list(a_plan().intents())
    assert intents == list(a_plan().intents())
    assert Counter(intent.method for intent in intents) == {method: weight * 20 for method, weight in MIX.items()}
    assert [intent.number for intent in intents] == list(range(1, 201))
    assert all(AMOUNT_MIN <= intent.amount <= AMOUNT_MAX for intent in intents)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": RATE_MAX + 1}, "--rate"),
        ({"rate": 0}, "--rate"),
        ({"rate": float("nan")}, "--rate"),
        ({"rate": float("inf")}, "--rate"),
        ({"rate": 1001, "shape": Shape.BURST}, "5 times as fast"),
        ({"duration_s": 601}, "--duration"),
        ({"duration_s": float("nan")}, "--duration"),
        ({"rate": 5000, "duration_s": 101}, "505,000 payments"),
    ],
)
def test_an_absurd_plan_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        refuse_absurd(a_plan(**changes))


def test_the_largest_plans_are_allowed() -> None:
    for changes in ({"rate": 5000, "duration_s": 100}, {"rate": 1000, "shape": Shape.BURST}, {"duration_s": 600}):
        assert refuse_absurd(a_plan(**changes))


def test_a_mix_names_methods_and_weights() -> None:
    assert parse_mix("credit=6, Debit=3,paypal=0") == {
        MethodType.CREDIT_CARD: 6,
        MethodType.DEBIT_CARD: 3,
        MethodType.PAYPAL: 0,
    }
    only_paypal = a_plan(mix=parse_mix("credit=0,paypal=2")).intents()
    assert {intent.method for intent in only_paypal} == {MethodType.PAYPAL}


@pytest.mark.parametrize(
    "text", ["", "credit", "credit=", "credit=-1", "gold=1", "credit=1,credit=2", "debit=0", "paypal=1001"]
)
def test_a_mix_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="--mix"):
        parse_mix(text)


# -- refusals before anything starts


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(rate=6000), "--rate 6000"),
        (Options(mix="gold=1"), "--mix"),
        (Options(workers="0"), "--workers"),
        (Options(workers="1,2", slots=0), "--slots"),
        (Options(plot=Path("plot.png")), "SVG"),
        (Options(json=Path("nowhere/at/all.json")), "no folder"),
        (Options(captures=1.5), "--captures 1.5"),
        (Options(workers="1,2", refunds=0.1), "plain payments"),
        (Options(target="http://127.0.0.1:8009"), "--token"),
        (Options(target="ftp://127.0.0.1", token="t"), "--target"),
        (Options(target="http://203.0.113.7:8009", token="t"), "--target-is-mine"),
        (Options(target="http://127.0.0.1:8009", token="t", workers="1"), "started here"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    options: Options, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        assert run_load(options) == 2
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert words in capsys.readouterr().out.replace("\n", " ")


def test_another_machine_is_loaded_only_by_its_owner() -> None:
    assert remote_target("http://203.0.113.7:8009/api/v1/", "t", is_mine=True).url == "http://203.0.113.7:8009"
    for url in ("http://127.0.0.1:8009", "http://localhost:8009", "http://[::1]:8009"):
        assert remote_target(url, "t", is_mine=False).url == url


# -- counting


def test_requests_are_counted_by_second_and_add_up() -> None:
    counts = RequestCounts()
    for at_s in (0.1, 0.9, 1.5, 2.5):
        counts.offer(at_s)
    counts.accept(0.2, 100)
    counts.accept(1.0, 300)
    counts.refuse(1.6, "503 overloaded")
    counts.leave(2.5, "late")
    assert (counts.offered, counts.sent, counts.accepted) == (4, 3, 2)
    assert [second.offered for second in counts.seconds] == [2, 1, 1]
    assert [second.accepted for second in counts.seconds] == [1, 1, 0]
    assert (counts.whole(2.2).refused, counts.whole(9).offered) == (1, 0)
    assert counts.refused == {"503 overloaded": 1}
    assert counts.latency == Spread(p50=100, p95=300, p99=300, longest=300)
    assert counts.latency_at(1.9) == Spread(100, 100, 100, 100)


def test_a_spread_is_made_of_values_that_were_measured() -> None:
    assert spread([]) is None
    assert spread(list(range(100, 0, -1))) == Spread(p50=50, p95=95, p99=99, longest=100)


def test_the_tally_knows_what_has_not_ended() -> None:
    tally = PaymentTally("7")
    for number in range(3):
        tally.see(shown(f"7{number}", at_s=number))
    tally.see(shown("70", "COMPLETED"))
    tally.see(shown("70"))  # an older answer that comes late
    tally.see(shown("72", "FAILED", at_s=2))
    tally.see(shown("81"))  # another run's order
    assert set(tally.open) == {"p-71"}
    assert tally.oldest_open_at == 1_000_001
    assert tally.settled == 2
    assert tally.ends == {(PaymentStatus.COMPLETED, ""): 1, (PaymentStatus.FAILED, "card_declined"): 1}
    assert tally.settle_times_ms() == [2000, 2000]
    assert settled_per_s(tally.ended_at, 1_000_000, 1_000_004) == 0.25
    assert settled_by_second(tally) == [0, 0, 1, 0, 1]


def test_an_order_with_two_live_payments_was_paid_twice() -> None:
    tally = PaymentTally("7")
    tally.see(shown("70", "FAILED", payment_id="a"))
    tally.see(shown("70", "COMPLETED", payment_id="b"))
    assert tally.paid_twice == {}, "a second try after a failure is none"
    tally.see(shown("70", "COMPLETED", payment_id="c"))
    assert tally.paid_twice == {"70": {"b", "c"}}


def test_a_payment_that_ends_twice_differently_is_noticed() -> None:
    tally = PaymentTally("7")
    for status in ("COMPLETED", "COMPLETED", "FAILED"):
        tally.see(shown("70", status))
    assert tally.changed == {"p-70"}


def a_history(*statuses: str) -> list[dict[str, Any]]:
    before = [None, *statuses[:-1]]
    return [
        {"sequence": number, "previous_status": previous, "new_status": status}
        for number, (previous, status) in enumerate(zip(before, statuses, strict=True), start=1)
    ]


def test_a_history_has_no_gap_and_one_end() -> None:
    whole = a_history("PENDING", "PROCESSING", "PROCESSING", "COMPLETED")
    assert tells_one_end(whole, 4)
    assert not tells_one_end(whole, 5)
    assert not tells_one_end(whole[:-1], 3), "no end"
    assert not tells_one_end([whole[0], *whole[2:]], 3), "a gap"
    assert not tells_one_end(a_history("PENDING", "PROCESSING", "COMPLETED", "COMPLETED"), 4), "two ends"
    assert not tells_one_end([whole[0], whole[1] | {"previous_status": "PROCESSING"}, *whole[2:]], 4), "a jump"


def test_the_longest_histories_are_read_and_not_too_many() -> None:
    tally = PaymentTally("7")
    for number in range(500):
        tally.see(shown(f"7{number}", "COMPLETED", sequence=9 if number == 321 else 3))
    chosen = choose_histories(tally)
    assert chosen[0] == "p-7321"
    assert len(chosen) == len(set(chosen)) <= HISTORIES_MAX
    assert choose_histories(PaymentTally("7")) == []


# -- a run against a service that does what the test wants


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


# -- the gateway's ledger


def an_entry(payment_id: UUID, kind: str, amount: int, step: int = 1) -> dict[str, Any]:
    return {
        "key": f"{payment_id}:{kind}",
        "payment_id": payment_id,
        "step": step,
        "kind": kind,
        "amount": amount,
        "currency": "USD",
        "answer": {"transaction_id": "ch_1"},
        "created_at": datetime.now(UTC),
    }


async def test_the_ledger_shows_what_the_records_hide(settings: Settings, database: Database) -> None:
    now = datetime.now(UTC)
    good, declined, twice, unpaid, charged = (
        accepted(now, id=new_id(), order_id=name, status=status, due_at=None, amount=700, gateway_transaction_id="ch_1")
        for name, status in (
            ("good", PaymentStatus.COMPLETED),
            ("declined", PaymentStatus.FAILED),
            ("twice", PaymentStatus.COMPLETED),
            ("unpaid", PaymentStatus.COMPLETED),
            ("charged", PaymentStatus.FAILED),
        )
    )
    await write(database, good, declined, twice, unpaid, charged)
    orphan = new_id()
    async with database.transaction() as connection:
        await connection.execute(
            insert(gateway_ledger),
            [
                an_entry(good.id, "authorize", 700),
                an_entry(good.id, "capture", 700, step=2),
                an_entry(declined.id, "decline", 700),
                an_entry(twice.id, "sale", 700),
                an_entry(twice.id, "capture", 700, step=2),
                an_entry(charged.id, "sale", 700),
                an_entry(orphan, "sale", 5),
            ],
        )
    verdict = LoadVerdict()
    await judge_ledger(settings, verdict)
    assert {broken.words: set(broken.examples) for broken in verdict.broken} == {
        KINDS[BreachKind.CHARGED_TWICE].words: {str(twice.id)},
        KINDS[BreachKind.ENDED_CHARGED].words: {str(charged.id)},
        KINDS[BreachKind.COMPLETED_UNCHARGED].words: {str(unpaid.id)},
        KINDS[BreachKind.ORPHAN_CHARGE].words: {str(orphan)},
    }


async def test_two_charges_for_one_order_are_found_in_the_ledger(settings: Settings, database: Database) -> None:
    now = datetime.now(UTC)
    first = accepted(now, id=new_id(), order_id="7", status=PaymentStatus.FAILED, due_at=None, amount=700)
    second = replace(first, id=new_id(), status=PaymentStatus.COMPLETED, gateway_transaction_id="ch_1")
    await write(database, first, second)
    async with database.transaction() as connection:
        await connection.execute(
            insert(gateway_ledger), [an_entry(first.id, "sale", 700), an_entry(second.id, "sale", 700)]
        )
    verdict = LoadVerdict()
    await judge_ledger(settings, verdict)
    assert [broken.examples for broken in verdict.broken] == [(str(first.id),)]


async def test_a_ledger_that_agrees_is_named_as_compared(settings: Settings, database: Database) -> None:
    verdict = LoadVerdict()
    await judge_ledger(settings, verdict)
    assert verdict.is_clean
    assert verdict.compared == ["0 charges in the gateway's ledger with 0 COMPLETED payments"]
