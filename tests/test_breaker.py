"""The breaker, with a clock of its own."""

import asyncio
from dataclasses import dataclass

import pytest

from shared.breaker import Breaker
from shared.errors import NeighbourUnreachable


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


class Trouble(Exception):
    pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("shop", failures_max=3, open_s=10, clock=clock)


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(NeighbourUnreachable, match="really"), breaker.guard():
            raise NeighbourUnreachable("really")


def succeed(breaker: Breaker) -> None:
    with breaker.guard():
        pass


def is_open(breaker: Breaker) -> bool:
    try:
        breaker.check()
    except NeighbourUnreachable:
        return True
    return False


def test_it_opens_after_failures_in_a_row_and_says_for_how_long(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 2)
    assert not is_open(breaker)
    fail(breaker)
    clock.now += 4
    with pytest.raises(NeighbourUnreachable, match="lately") as caught, breaker.guard():
        raise AssertionError("nobody gets here")
    assert caught.value.retry_after_s == 6


def test_a_success_in_between_starts_the_count_anew(breaker: Breaker) -> None:
    for _ in range(5):
        fail(breaker, 2)
        succeed(breaker)
    assert not is_open(breaker)


def test_one_probe_finds_out_for_all(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    with breaker.guard():
        assert is_open(breaker)  # the others go on waiting
    assert not is_open(breaker)


def test_a_probe_that_fails_opens_it_again_at_once(breaker: Breaker, clock: Clock) -> None:
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
    breaker: Breaker, clock: Clock, error: type[BaseException]
) -> None:
    fail(breaker, 3)
    clock.now += 10
    with pytest.raises(error), breaker.guard():
        raise error
    assert not is_open(breaker)
    succeed(breaker)


def test_what_says_nothing_about_the_neighbour_is_not_counted(breaker: Breaker) -> None:
    for _ in range(5):
        with pytest.raises(Trouble), breaker.guard():
            raise Trouble
    assert not is_open(breaker)


def test_requests_that_were_under_way_when_it_opened_change_nothing_by_failing(breaker: Breaker, clock: Clock) -> None:
    def fail_late() -> None:
        with breaker.guard():
            fail(breaker, 3)
            clock.now += 9
            raise NeighbourUnreachable("late")

    with pytest.raises(NeighbourUnreachable, match="late"):
        fail_late()
    clock.now += 1
    assert not is_open(breaker)
