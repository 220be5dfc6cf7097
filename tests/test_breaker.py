"""The breaker, with a clock of its own."""

import asyncio

import pytest
from structlog.testing import capture_logs

from shared.errors import BrokerUnavailable, UpstreamUnavailable
from shared.upstream.breaker import Breaker
from tests.support.manual_clock import ManualClock


class Trouble(Exception):
    pass


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> Breaker:
    return Breaker("shop", failures_max=3, open_s=10, clock=clock)


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(UpstreamUnavailable, match="really"), breaker.guard():
            raise UpstreamUnavailable("really")


def succeed(breaker: Breaker) -> None:
    with breaker.guard():
        pass


def is_open(breaker: Breaker) -> bool:
    try:
        breaker.check()
    except UpstreamUnavailable:
        return True
    return False


def test_it_opens_after_failures_in_a_row_and_says_for_how_long(breaker: Breaker, clock: ManualClock) -> None:
    fail(breaker, 2)
    assert not is_open(breaker)
    fail(breaker)
    clock.now += 4
    with pytest.raises(UpstreamUnavailable, match="lately") as caught, breaker.guard():
        raise AssertionError("no call is let through")
    assert caught.value.retry_after_s == 6


def test_a_success_in_between_starts_the_count_anew(breaker: Breaker) -> None:
    for _ in range(5):
        fail(breaker, 2)
        succeed(breaker)
    assert not is_open(breaker)


def test_one_probe_finds_out_for_all(breaker: Breaker, clock: ManualClock) -> None:
    fail(breaker, 3)
    clock.now += 10
    with breaker.guard():
        assert is_open(breaker)  # the others go on waiting
    assert not is_open(breaker)


def test_without_a_single_probe_every_call_goes_ahead_after_the_open_time(clock: ManualClock) -> None:
    breaker = Breaker("redis", failures_max=1, open_s=10, single_probe=False, clock=clock)
    fail(breaker)
    assert is_open(breaker)
    clock.now += 10
    with breaker.guard():
        assert not is_open(breaker)
        succeed(breaker)
    fail(breaker)
    assert is_open(breaker)


def test_a_forced_call_goes_ahead_and_counts_like_any_other(breaker: Breaker, clock: ManualClock) -> None:
    fail(breaker, 3)
    clock.now += 9
    with pytest.raises(UpstreamUnavailable, match="forced"), breaker.guard(is_forced=True):
        raise UpstreamUnavailable("forced")
    clock.now += 9
    assert is_open(breaker)
    with breaker.guard(is_forced=True):
        pass
    assert not is_open(breaker)


def test_a_probe_that_fails_is_no_second_warning(breaker: Breaker, clock: ManualClock) -> None:
    with capture_logs() as lines:
        fail(breaker, 3)
        for _ in range(2):
            clock.now += 10
            fail(breaker)
    levels = [line["log_level"] for line in lines if line["event"] == "breaker.opened"]
    assert levels == ["warning", "debug", "debug"]


def test_a_probe_that_fails_opens_it_again_at_once(breaker: Breaker, clock: ManualClock) -> None:
    fail(breaker, 3)
    clock.now += 10
    fail(breaker)
    assert is_open(breaker)
    clock.now += 9
    assert is_open(breaker)
    clock.now += 1
    succeed(breaker)
    fail(breaker, 2)
    assert not is_open(breaker)


@pytest.mark.parametrize("error", [Trouble, asyncio.CancelledError])
def test_a_probe_that_was_given_up_leaves_its_place_to_another(
    breaker: Breaker, clock: ManualClock, error: type[BaseException]
) -> None:
    fail(breaker, 3)
    clock.now += 10
    with pytest.raises(error), breaker.guard():
        raise error
    assert not is_open(breaker)
    succeed(breaker)


def test_what_says_nothing_about_the_upstream_is_not_counted(breaker: Breaker) -> None:
    for _ in range(5):
        with pytest.raises(Trouble), breaker.guard():
            raise Trouble
    assert not is_open(breaker)


def test_the_error_it_is_given_is_what_it_counts_and_what_it_raises() -> None:
    breaker = Breaker("redis", failures_max=1, open_s=10, error=BrokerUnavailable)
    with pytest.raises(UpstreamUnavailable), breaker.guard():
        raise UpstreamUnavailable("another part")
    with pytest.raises(BrokerUnavailable, match="really"), breaker.guard():
        raise BrokerUnavailable("really")
    with pytest.raises(BrokerUnavailable, match="lately"):
        breaker.check()


def test_requests_that_were_under_way_when_it_opened_change_nothing_by_failing(
    breaker: Breaker, clock: ManualClock
) -> None:
    def fail_late() -> None:
        with breaker.guard():
            fail(breaker, 3)
            clock.now += 9
            raise UpstreamUnavailable("late")

    with pytest.raises(UpstreamUnavailable, match="late"):
        fail_late()
    clock.now += 1
    assert not is_open(breaker)
