"""The plan of a load: when its payments arrive and of which methods they are; and what is refused before it starts."""

import itertools
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cli.load.command import Options, run_load
from cli.load.plan import AMOUNT_MAX, AMOUNT_MIN, BURST_EVERY_S, RATE_MAX, Refused, parse_mix, refuse_absurd
from cli.load.targets import remote_target
from cli.options import Shape
from shared.lifecycle import MethodType
from tests.support.loads import MIX, a_plan

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
