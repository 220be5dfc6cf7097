"""One time limit for many: each one's time is its own, and those that are late at once leave turns to the others."""

import asyncio

from api.edge.deadline import LATE_PER_TURN, SharedDeadline


class Waiting:
    """Something with a time limit, which notes in which turn of the loop it was over."""

    def __init__(self, over: list[int], turns: list[int], *, fails: bool = False) -> None:
        self._over, self._turns, self._fails = over, turns, fails

    def on_late(self) -> None:
        self._over.append(self._turns[0])
        if self._fails:
            raise RuntimeError("planted")


async def test_many_that_are_late_at_once_take_turns_with_the_others() -> None:
    loop = asyncio.get_running_loop()
    errors: list[object] = []
    loop.set_exception_handler(lambda _loop, context: errors.append(context["exception"]))
    turns, over = [0], list[int]()
    deadline: SharedDeadline[Waiting] = SharedDeadline(loop, 0.05)
    count = 5 * LATE_PER_TURN
    for number in range(count):
        deadline.start(Waiting(over, turns, fails=number == 1))
    gone = Waiting(over, turns)
    deadline.start(gone)
    assert 0 < deadline.cancel(gone) <= 0.05
    assert deadline.cancel(gone) == 0
    async with asyncio.timeout(5):
        while len(over) < count:
            turns[0] += 1
            await asyncio.sleep(0)
    assert max(map(over.count, over)) <= 2 * LATE_PER_TURN
    assert len(set(over)) >= 3
    # One that fails ends no other one's limit.
    assert len(errors) == 1
    await asyncio.sleep(0.1)
    assert len(over) == count


class Timed:
    """Something with a time limit, which notes when it was over."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.began_at = loop.time()
        self.over = asyncio.Event()
        self.took_s = 0.0

    def on_late(self) -> None:
        self.took_s = self._loop.time() - self.began_at
        self.over.set()


async def test_a_time_limit_is_not_over_before_its_time() -> None:
    loop = asyncio.get_running_loop()
    deadline: SharedDeadline[Timed] = SharedDeadline(loop, 0.2)
    timed = []
    for _ in range(3):
        timed.append(Timed(loop))
        deadline.start(timed[-1])
        await asyncio.sleep(0.05)
    for one in timed:
        await asyncio.wait_for(one.over.wait(), 10)
        assert one.took_s >= 0.2
    assert len(deadline) == 0


async def test_those_that_are_due_first_can_be_had() -> None:
    loop = asyncio.get_running_loop()
    deadline: SharedDeadline[Timed] = SharedDeadline(loop, 3600)
    timed = [Timed(loop) for _ in range(3)]
    for one in timed:
        deadline.start(one)
    assert deadline.first(2, before=loop.time() + 1) == timed[:2]
    assert deadline.first(9, before=loop.time() + 1) == timed
    assert deadline.first(-1, before=loop.time() + 1) == []
    assert deadline.first(9, before=timed[0].began_at) == []
    for one in timed:
        deadline.cancel(one)
