"""The load keeps its pace whatever the server does, counts honestly, and finds what was lost or charged twice."""

import asyncio
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID
from xml.etree import ElementTree as ET

import psutil
import pytest
from aiohttp import web
from rich.console import Console
from sqlalchemy import insert

from cli.load import Options, run_load
from cli.load_book import Book, settled_per_s
from cli.load_checks import HISTORIES_MAX, Verdict, choose_histories, judge_ledger, tells_one_end
from cli.load_client import Figures, WorkerFigures, open_api
from cli.load_frame import Look, frame
from cli.load_picture import photograph
from cli.load_plan import (
    AMOUNT_MAX,
    AMOUNT_MIN,
    BURST_EVERY_S,
    RATE_MAX,
    Plan,
    Refused,
    Shape,
    parse_mix,
    parse_shape,
    refuse_absurd,
)
from cli.load_plot import Line, Plot, check_plot_name, svg
from cli.load_progress import Progress, Sample
from cli.load_report import document, exit_code, settled_by_second
from cli.load_run import Bounds, Run, prepare
from cli.load_scaling import measured, parse_workers, possible_per_s, saturating_rate
from cli.load_scaling import plot as scaling_plot
from cli.load_scaling import table as scaling_table
from cli.load_stage import Stage, target
from cli.load_tally import Second, Spread, Tally, spread
from cli.load_view import plain_line
from cli.verify_kinds import KINDS, BreachKind
from shared.config import Settings
from shared.db import Database
from shared.ids import new_id
from shared.lifecycle import MethodType, PaymentStatus
from shared.models import gateway_ledger
from tests.rows import accepted, write
from tests.servers import wait_until

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
MIX = {MethodType.CREDIT_CARD: 6, MethodType.DEBIT_CARD: 3, MethodType.PAYPAL: 1}
LOAD_MAX_S = 120  # it takes 12 s; a loaded machine may need much longer
ENDS_MAX_S = 40


def parsed(picture: str) -> ET.Element:
    return ET.fromstring(picture)  # noqa: S314 - we drew it


def a_plan(**changes: Any) -> Plan:
    return replace(Plan(rate=20, duration_s=10, shape=Shape.STEADY, mix=MIX, seed="tests"), **changes)


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


def test_only_the_four_shapes_are_known() -> None:
    assert {parse_shape(str(shape).upper()) for shape in Shape} == set(Shape)
    with pytest.raises(Refused, match="steady, ramp, burst, poisson"):
        parse_shape("square")


# -- refusals before anything starts


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(rate=6000), "--rate 6000"),
        (Options(mix="gold=1"), "--mix"),
        (Options(shape="square"), "--shape"),
        (Options(workers="0"), "--workers"),
        (Options(workers="1,2", slots=0), "--slots"),
        (Options(plot=Path("plot.png")), "SVG"),
        (Options(json=Path("nowhere/at/all.json")), "no folder"),
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
    assert target("http://203.0.113.7:8009/api/v1/", "t", is_mine=True).url == "http://203.0.113.7:8009"
    for url in ("http://127.0.0.1:8009", "http://localhost:8009", "http://[::1]:8009"):
        assert target(url, "t", is_mine=False).url == url


# -- counting


def test_a_tally_counts_by_second_and_adds_up() -> None:
    tally = Tally()
    for at_s in (0.1, 0.9, 1.5, 2.5):
        tally.offer(at_s)
    tally.accept(0.2, 100)
    tally.accept(1.0, 300)
    tally.refuse(1.6, "503 overloaded")
    tally.leave(2.5, "late")
    assert (tally.offered, tally.sent, tally.accepted) == (4, 3, 2)
    assert [second.offered for second in tally.seconds] == [2, 1, 1]
    assert [second.accepted for second in tally.seconds] == [1, 1, 0]
    assert (tally.whole(2.2).refused, tally.whole(9).offered) == (1, 0)
    assert tally.refused == {"503 overloaded": 1}
    assert tally.latency == Spread(p50=100, p95=300, p99=300, longest=300)
    assert tally.latency_at(1.9) == Spread(100, 100, 100, 100)


def test_a_spread_is_made_of_values_that_were_measured() -> None:
    assert spread([]) is None
    assert spread(list(range(100, 0, -1))) == Spread(p50=50, p95=95, p99=99, longest=100)


def shown(
    order_id: str, status: str = "PENDING", *, payment_id: str = "", at_s: float = 0, sequence: int = 3
) -> dict[str, Any]:
    """A payment as the API shows it."""
    created = datetime.fromtimestamp(1_000_000 + at_s, UTC)
    has_ended = status in {"COMPLETED", "FAILED"}
    return {
        "id": payment_id or f"p-{order_id}",
        "order_id": order_id,
        "status": status,
        "failure_code": "card_declined" if status == "FAILED" else None,
        "sequence": sequence if has_ended else 1,
        "created_at": created.isoformat(),
        "processed_at": datetime.fromtimestamp(1_000_002 + at_s, UTC).isoformat() if has_ended else None,
    }


def test_the_book_knows_what_has_not_ended() -> None:
    book = Book("7")
    for number in range(3):
        book.see(shown(f"7{number}", at_s=number))
    book.see(shown("70", "COMPLETED"))
    book.see(shown("70"))  # an older answer that comes late
    book.see(shown("72", "FAILED", at_s=2))
    book.see(shown("81"))  # somebody else's order
    assert set(book.open) == {"p-71"}
    assert book.oldest_open_at == 1_000_001
    assert book.settled == 2
    assert book.ends == {(PaymentStatus.COMPLETED, ""): 1, (PaymentStatus.FAILED, "card_declined"): 1}
    assert book.settle_times_ms() == [2000, 2000]
    assert settled_per_s(book.ended_at, 1_000_000, 1_000_004) == 0.25
    assert settled_by_second(book) == [0, 0, 1, 0, 1]


def test_an_order_with_two_live_payments_was_paid_twice() -> None:
    book = Book("7")
    book.see(shown("70", "FAILED", payment_id="a"))
    book.see(shown("70", "COMPLETED", payment_id="b"))
    assert book.paid_twice == {}, "a second try after a failure is none"
    book.see(shown("70", "COMPLETED", payment_id="c"))
    assert book.paid_twice == {"70": {"b", "c"}}


def test_a_payment_that_ends_twice_differently_is_noticed() -> None:
    book = Book("7")
    for status in ("COMPLETED", "COMPLETED", "FAILED"):
        book.see(shown("70", status))
    assert book.changed == {"p-70"}


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
    book = Book("7")
    for number in range(500):
        book.see(shown(f"7{number}", "COMPLETED", sequence=9 if number == 321 else 3))
    chosen = choose_histories(book)
    assert chosen[0] == "p-7321"
    assert len(chosen) == len(set(chosen)) <= HISTORIES_MAX
    assert choose_histories(Book("7")) == []


# -- a run against a service that does what the test wants


@dataclass
class Misbehaving:
    """Just enough of the API, with faults."""

    ends_as: str = "COMPLETED"
    loses_answers: int = 0  # so many POSTs are done and not answered
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
        stage = Stage(url=f"http://127.0.0.1:{runner.addresses[0][1]}", words="a fake", payers=("t",), watcher="t")
        async with open_api(stage.url, connections_max=200) as api:
            payers = await prepare(stage, api, list(MIX))
            run = Run(plan, stage, api, bounds=bounds)
            yield await run.go(payers, asyncio.Event())
    finally:
        await runner.cleanup()


SHORT = a_plan(rate=60, duration_s=1)
QUICK = Bounds(stalled_max_s=0.5, drain_max_s=3)


async def test_a_clean_run_is_counted_and_judged() -> None:
    service = Misbehaving()
    async with loaded(service, SHORT, QUICK) as progress:
        assert (progress.tally.offered, progress.tally.accepted, progress.book.settled) == (60, 60, 60)
        assert progress.verdict.is_clean
        assert exit_code(progress) == 0
        assert len(set(service.posts)) == len(service.posts) == 60
        told = document(progress)
    assert told["requests"]["accepted"] == 60
    assert told["outcomes"] == [{"status": "COMPLETED", "failure_code": None, "payments": 60}]
    assert json.loads(json.dumps(told)) == told


async def test_a_lost_answer_is_asked_for_again_with_the_same_key_and_nothing_is_paid_twice() -> None:
    service = Misbehaving(loses_answers=5)
    async with loaded(service, SHORT, QUICK) as progress:
        assert progress.tally.repeated == 5
        assert progress.tally.accepted == 60
        assert len(set(service.posts)) == 60 < len(service.posts)
        assert exit_code(progress) == 0


async def test_a_request_that_nobody_answers_twice_is_looked_up_in_the_end() -> None:
    service = Misbehaving(loses_answers=10**9)
    async with loaded(service, a_plan(rate=10, duration_s=1), QUICK) as progress:
        assert (progress.tally.accepted, progress.tally.unanswered, progress.tally.repeated) == (0, 10, 10)
        assert progress.book.found_after_all() == 10, "they were written down, and they ended"
        assert exit_code(progress) == 0


async def test_an_overloaded_service_slows_no_arrival_down_and_is_not_asked_again() -> None:
    service = Misbehaving(overloaded_from=21)
    async with loaded(service, SHORT, QUICK) as progress:
        assert progress.tally.refused == {"503 overloaded": 40}
        assert (progress.tally.accepted, progress.tally.repeated, len(service.posts)) == (20, 0, 60)
        assert exit_code(progress) == 0


async def test_what_cannot_be_sent_is_counted_and_never_queued() -> None:
    service = Misbehaving(hangs=True)
    async with loaded(service, SHORT, replace(QUICK, open_max=5)) as progress:
        assert progress.tally.offered == 60, "arrivals come by the clock alone"
        assert progress.tally.not_sent == {"5 requests were open": 55}
        assert len(service.posts) == progress.tally.sent == progress.tally.accepted == 5


async def test_a_payment_that_never_ends_is_lost() -> None:
    async with loaded(Misbehaving(ends_as="PROCESSING"), a_plan(rate=5, duration_s=1), QUICK) as progress:
        assert [(broken.count, "never ended" in broken.words) for broken in progress.verdict.broken] == [(5, True)]
        assert exit_code(progress) == 1


async def test_a_payment_that_the_service_has_forgotten_is_lost() -> None:
    async with loaded(Misbehaving(forgets=True), a_plan(rate=5, duration_s=1), QUICK) as progress:
        assert [broken.words for broken in progress.verdict.broken] == ["accepted and then unknown to the API"]
        assert exit_code(progress) == 1


async def test_an_order_that_is_paid_twice_is_found() -> None:
    async with loaded(Misbehaving(charges_twice=True), a_plan(rate=5, duration_s=1), QUICK) as progress:
        assert [(broken.words, broken.count) for broken in progress.verdict.broken] == [
            ("orders with more than one live payment", 5)
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


# -- the gateway's books


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


async def test_the_ledger_tells_what_the_records_hide(settings: Settings, database: Database) -> None:
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
    nobody = new_id()
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
                an_entry(nobody, "sale", 5),
            ],
        )
    verdict = Verdict()
    await judge_ledger(settings, verdict)
    assert {broken.words: set(broken.examples) for broken in verdict.broken} == {
        KINDS[BreachKind.CHARGED_TWICE].words: {str(twice.id)},
        KINDS[BreachKind.ENDED_CHARGED].words: {str(charged.id)},
        KINDS[BreachKind.COMPLETED_UNCHARGED].words: {str(unpaid.id)},
        KINDS[BreachKind.CHARGE_OF_NOBODY].words: {str(nobody)},
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
    verdict = Verdict()
    await judge_ledger(settings, verdict)
    assert [broken.examples for broken in verdict.broken] == [(str(first.id),)]


async def test_a_ledger_that_agrees_is_told_as_compared(settings: Settings, database: Database) -> None:
    verdict = Verdict()
    await judge_ledger(settings, verdict)
    assert verdict.is_clean
    assert verdict.compared == ["0 charges in the gateway's ledger with 0 COMPLETED payments"]


# -- what is shown


def a_worker(number: int, *, slots: int = 50, in_gateway: int = 40, settled: int = 0) -> WorkerFigures:
    return WorkerFigures(f"host-{number}-abcd", slots, in_gateway, settled, 24.0)


def some_figures(workers: tuple[WorkerFigures, ...] | None) -> Figures:
    return Figures(
        computed_at=0.0,
        queue_depth=12,
        in_gateway=90,
        oldest_pending_s=0.4,
        webhook_backlog=3,
        settled_per_s=48.0,
        workers=workers,
    )


def a_sample(at_s: int, figures: Figures | None) -> Sample:
    return Sample(at_s, Second(20, 19, 1, 0), Spread(5, 9, 12, 40), 10, figures, None)


def a_progress(*figures: Figures | None) -> Progress:
    stage = Stage(url="http://127.0.0.1:8009", words="a running deployment", payers=("t",), watcher="t")
    progress = Progress(a_plan(), stage, phase="sending")
    progress.samples = [a_sample(at_s, found) for at_s, found in enumerate(figures, start=1)]
    progress.figures = figures[-1]
    progress.book.ends.update({(PaymentStatus.COMPLETED, ""): 30, (PaymentStatus.FAILED, "card_declined"): 2})
    return progress


def seen(progress: Progress, look: Look) -> list[str]:
    printed = io.StringIO()
    Console(file=printed, width=look.width, highlight=False).print(frame(progress, look))
    return printed.getvalue().splitlines()


def test_a_pipe_gets_one_plain_line_per_second() -> None:
    line = plain_line(a_sample(3, some_figures((a_worker(1), a_worker(2)))), "")
    assert CONTROL.search(line) is None
    assert line == (
        "   3 s  offered 20/s  accepted 19/s  refused 1/s, not sent 0/s  settled 48/s  queue 12  in the gateway 90"
        "  webhooks waiting 3  workers 2  202 after 5/9/12 ms (p50/p95/p99)"
    )
    assert "settled" not in plain_line(a_sample(3, None), "")


@pytest.mark.parametrize("width", [80, 104])
@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_the_picture_fits_the_terminal_and_has_a_bar_for_each_worker(width: int, count: int) -> None:
    look = Look(width=width, height=40, ascii_only=True)
    lines = seen(a_progress(some_figures(tuple(a_worker(number) for number in range(count)))), look)
    assert all(len(line.rstrip()) <= width for line in lines)
    assert sum(line.count("40/50") for line in lines) == count
    text = "\n".join(lines)
    assert ("nobody is at work" in text) == (count == 0)
    for words in ("offered", "accepted", "settled", "p50", "p99", "queue depth", "in the gateway", "webhook backlog"):
        assert words in text
    assert re.search(r"card_declined +2 +6.2%", text)


def test_a_worker_that_goes_is_still_named_for_a_moment_and_then_vanishes() -> None:
    both, one = some_figures((a_worker(1), a_worker(2))), some_figures((a_worker(1),))
    assert "gone" not in "\n".join(seen(a_progress(both, both), Look()))
    assert re.search(r"host-2-abcd +gone", "\n".join(seen(a_progress(both, one), Look())))
    assert "host-2" not in "\n".join(seen(a_progress(both, one, one, one, one), Look()))


def test_a_small_terminal_shows_as_many_workers_as_fit_and_says_so() -> None:
    look = Look(width=80, height=24, ascii_only=True)
    lines = seen(a_progress(some_figures(tuple(a_worker(number) for number in range(16)))), look)
    assert len(lines) <= look.height
    assert "10 not shown" in "\n".join(lines)


def test_without_an_admins_token_the_picture_says_why_it_knows_less() -> None:
    assert "admin" in "\n".join(seen(a_progress(None), Look()))


def test_a_photograph_is_an_svg_that_fetches_nothing() -> None:
    picture = photograph(frame(a_progress(some_figures((a_worker(1),))), Look()), width=104)
    assert parsed(picture).tag.endswith("svg")
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "").replace(
        "https://www.textualize.io", ""
    ).replace("http://127.0.0.1:8009", "")
    assert "host-1-abcd" in picture


# -- scaling and plots


def test_numbers_of_workers_are_bounded() -> None:
    assert parse_workers("1, 2,4") == [1, 2, 4]
    for text in ("", "1,,2", "-1", "17", "two", ",".join("1" * 9)):
        with pytest.raises(Refused, match="--workers"):
            parse_workers(text)


def test_the_line_is_workers_times_slots_by_the_mean_delay() -> None:
    assert possible_per_s(4, 50) == 100
    assert saturating_rate([1, 4], 50) == 120


def test_a_step_is_measured_while_all_slots_are_busy() -> None:
    progress = a_progress(None)
    progress.plan = a_plan(rate=30, duration_s=20)
    progress.sent_for_s = 20
    progress.book = Book("7")
    for number in range(600):  # accepted at 30/s, settled at 25/s from the start
        one = shown(f"7{number}", "COMPLETED", at_s=number / 30)
        ended = datetime.fromtimestamp(1_000_000 + number / 25, UTC).isoformat()
        progress.book.see(one | {"processed_at": ended})
    progress.samples = [
        a_sample(at_s, some_figures((a_worker(1, settled=at_s * 14), a_worker(2, settled=at_s * 10))))
        for at_s in range(1, 25)
    ]
    step = measured(progress, workers=1, slots=50)
    assert step.settled_per_s == pytest.approx(25, rel=0.01)
    assert step.share == pytest.approx(1, rel=0.01)
    assert step.least_share == pytest.approx(10 / 12)
    assert step.most_share == pytest.approx(14 / 12)
    printed = io.StringIO()
    Console(file=printed, width=80, highlight=False).print(scaling_table([step]))
    assert re.search(r"1 │ +25.0 │ +25.0 │ +\d+.\d% │ -17% \+17%", printed.getvalue())
    assert "workers x slots / mean delay" in svg(scaling_plot([step], "a load"))


def test_a_run_that_is_too_short_tells_no_rate() -> None:
    progress = a_progress(None)
    progress.book = Book("7")
    progress.book.see(shown("70", "COMPLETED"))
    assert measured(progress, workers=1, slots=50).settled_per_s is None


def test_a_plot_is_a_whole_svg_with_every_line_inside() -> None:
    lines = (
        Line("possible & more", [(0, 0), (8, 200)], "#000", is_dashed=True),
        Line("measured", [(1, 24), (8, 190.5)], "#0a0", has_points=True),
    )
    picture = svg(Plot(title="a <title>", subtitle="", x_name="x", y_name="y", lines=lines, x_ticks=[1, 8]))
    root = parsed(picture)
    assert [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")] == ["a <title>"]
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == 2
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert all(0 < float(one.attrib["cx"]) < width and 0 < float(one.attrib["cy"]) < height for one in circles)
    assert svg(Plot(title="", subtitle="", x_name="", y_name="", lines=[Line("none", [], "#000")])).endswith("</svg>\n")


def test_a_plot_is_an_svg() -> None:
    check_plot_name(Path("plot.SVG"))
    with pytest.raises(Refused, match="SVG"):
        check_plot_name(Path("plot.png"))


# -- the real thing


@dataclass
class Load:
    """A running `payments load`, what it has printed, and every process it ever had."""

    process: subprocess.Popen[bytes]
    temporary: Path
    printed: Path
    family: set[psutil.Process] = field(default_factory=set)

    @property
    def output(self) -> str:
        return self.printed.read_text()

    def look(self) -> bool:
        """Note who belongs to it; True once it has ended."""
        try:
            self.family.update(psutil.Process(self.process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return True
        return self.process.poll() is not None

    def reaches(self, words: str) -> None:
        wait_until(lambda: self.look() or words in self.output, timeout_s=LOAD_MAX_S, what=words)
        assert words in self.output

    def ends(self, timeout_s: float = LOAD_MAX_S) -> int:
        """Its exit code; nothing of it is left then."""
        wait_until(self.look, timeout_s=timeout_s, what="the load ends")
        wait_until(lambda: not self.left(), timeout_s=ENDS_MAX_S, what="its processes end")
        assert list(self.temporary.iterdir()) == []
        return self.process.wait()

    def left(self) -> list[psutil.Process]:
        return [one for one in self.family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def load(printed: Path, *arguments: str) -> Iterator[Load]:
    """`payments load` in a pipe-like output, with a temporary folder of its own (short: a socket lies in it)."""
    with tempfile.TemporaryDirectory() as temporary, printed.open("wb") as output:
        Path(temporary).chmod(0o755)  # PostgreSQL does not run as root, and its user passes through
        environment = {**os.environ, "TMPDIR": temporary, "PAYMENT_SUCCESS_RATE": "0", "LOG_LEVEL": "nonsense"}
        for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):  # they ask for escape codes or another width
            environment.pop(name, None)
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; from cli.main import app; app(sys.argv[1:])", "load", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        running = Load(process, Path(temporary), printed)
        try:
            yield running
        finally:
            process.kill()
            process.wait()
            for leftover in running.left():
                leftover.kill()


def test_a_small_load_on_the_embedded_default_is_clean_and_leaves_nothing_behind(tmp_path: Path) -> None:
    files = {name: tmp_path / f"load.{name}" for name in ("json", "plot.svg", "picture.svg")}
    options = ("--json", "--plot", "--picture")
    named = [word for option, path in zip(options, files.values(), strict=True) for word in (option, str(path))]
    with load(tmp_path / "printed", "--rate", "20", "--duration", "3", *named) as running:
        assert running.ends() == 0, running.output
        assert len(running.family) >= 2, "the service and its Valkey"
    assert "Nothing lost, nothing charged twice." in running.output
    assert CONTROL.search(running.output) is None
    told = json.loads(files["json"].read_text())
    assert told["requests"]["accepted"] == told["webhooks_received"] == 60
    assert sum(outcome["payments"] for outcome in told["outcomes"]) == sum(told["settled_by_second"]) == 60
    assert [second["offered"] for second in told["seconds"][:3]] == [20, 20, 20]
    completed = sum(outcome["payments"] for outcome in told["outcomes"] if outcome["status"] == "COMPLETED")
    assert completed > 0, "no setting of the shell reaches the service"
    assert f"{completed} charges in the gateway's ledger" in running.output
    for name in ("plot.svg", "picture.svg"):
        assert parsed(files[name].read_text()).tag.endswith("svg")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_load_waits_for_what_was_accepted_and_tells_the_end(
    number: signal.Signals, tmp_path: Path
) -> None:
    with load(tmp_path / "printed", "--rate", "20", "--duration", "60") as running:
        running.reaches("   2 s  ")
        running.process.send_signal(number)
        assert running.ends() == 130, running.output
    assert "Nothing lost, nothing charged twice." in running.output
    assert "Traceback" not in running.output


@pytest.mark.slow
def test_a_second_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    with load(tmp_path / "printed", "--rate", "20", "--duration", "60") as running:
        running.reaches("   2 s  ")
        for _ in range(2):
            running.process.send_signal(signal.SIGINT)
            running.reaches("No more are sent")
        assert running.ends() == 130, running.output
    assert "Traceback" not in running.output


@pytest.mark.slow
def test_a_killed_load_leaves_no_process_behind(tmp_path: Path) -> None:
    with load(tmp_path / "printed", "--rate", "20", "--duration", "60", "--workers", "1") as running:
        running.reaches("   1 s  ")
        running.process.kill()
        wait_until(running.look, timeout_s=ENDS_MAX_S, what="it is dead")
        wait_until(lambda: not running.left(), timeout_s=ENDS_MAX_S, what="its processes end")
        assert len(running.family) >= 4, "PostgreSQL, Valkey, the API, a worker"


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    with load(tmp_path / "printed", "--rate", "30", "--duration", "10", "--workers", "2") as running:
        running.reaches("   4 s  ")
        workers = [one for one in running.family if one.is_running() and one.cmdline()[-1] == "worker"]
        assert len(workers) == 2
        workers[0].kill()
        assert running.ends() == 0, running.output
    assert "Nothing lost, nothing charged twice." in running.output


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_more_workers_settle_more(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    plot = tmp_path / "plot.svg"
    arguments = ("--workers", "1,2", "--slots", "10", "--duration", "20", "--json", str(told), "--plot", str(plot))
    with load(tmp_path / "printed", *arguments) as running:
        assert running.ends(timeout_s=300) == 0, running.output
    one, two = json.loads(told.read_text())["steps"]
    assert (one["possible_per_s"], two["possible_per_s"]) == (5, 10)
    assert two["settled_per_s"] > one["settled_per_s"], running.output
    assert "measured" in plot.read_text()
