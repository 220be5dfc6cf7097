"""In a flood the event loop's iterations stay short: intents start a few at a time.

What is promised is promised for one iteration of the event loop, so these tests count iterations.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Message, Receive, Scope, Send

from api.edge.admission import STARTS_PER_TICK, UNTHROTTLED_MAX, Admission
from api.edge.middleware import RequestContextMiddleware

PATH = "/api/v1/payments"
# More than start in ten iterations, and few enough to be admitted unthrottled if all others were gone.
BEYOND = 12 * STARTS_PER_TICK + 3
ALL = UNTHROTTLED_MAX + BEYOND


def a_scope(method: str = "POST") -> Scope:
    return {"type": "http", "method": method, "path": PATH, "headers": []}


async def silent() -> Message:
    return {"type": "http.disconnect"}


async def unheard(_message: Message) -> None:
    return


class Crowd:
    """Requests that come through the middleware and stay in the application until `opened` is set.

    They are known by their number, in the order in which they came.
    """

    def __init__(self) -> None:
        self.admission = Admission(ALL, frozenset({PATH}))
        self.opened = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        # The requests that have started, in order, each with the iteration of the event loop in which it did.
        self.started: dict[int, int] = {}
        self.iteration = 0
        self._middleware = RequestContextMiddleware(self._app, self.admission, is_stopping=lambda: False)
        self._changed = asyncio.Event()

    def come(self, scope: Scope) -> int:
        """Send one more request; its number."""
        number = len(self.tasks)
        scope["number"] = number
        self.tasks.append(asyncio.create_task(self._middleware(scope, silent, unheard)))
        return number

    async def until_started(self, count: int) -> None:
        """Return in the iteration after the one in which the request that makes it `count` has started."""
        while len(self.started) < count:
            self._changed.clear()
            await self._changed.wait()

    async def until_over(self, count: int) -> None:
        """Let everything that comes through the middleware end; `count` requests must have started by then."""
        await self.until_started(count)
        self.opened.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        assert len(self.started) == count
        assert self.admission.admitted == 0
        # There is no other sign of it: an admission that went on scheduling itself would keep a processor busy.
        assert self.admission._tick is None

    def throttled_starts(self) -> list[int]:
        """How many requests started in each iteration, from the first to the last in which throttled ones did."""
        unthrottled = self.started[UNTHROTTLED_MAX - 1]
        per_iteration = Counter(iteration for iteration in self.started.values() if iteration > unthrottled)
        return [per_iteration[iteration] for iteration in range(min(per_iteration), max(per_iteration) + 1)]

    def count_iteration(self) -> None:
        """Run once in every iteration, always at the same place among the callbacks of one."""
        self.iteration += 1
        self._counting = asyncio.get_running_loop().call_soon(self.count_iteration)

    def stop_counting(self) -> None:
        self._counting.cancel()

    async def _app(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        self.started[scope["number"]] = self.iteration
        self._changed.set()
        await self.opened.wait()


@asynccontextmanager
async def flood() -> AsyncIterator[Crowd]:
    """A crowd of intents that come all at once."""
    crowd = Crowd()
    crowd.count_iteration()
    try:
        for _ in range(ALL):
            crowd.come(a_scope())
        yield crowd
    finally:
        crowd.stop_counting()


async def test_few_start_together_when_there_are_many_and_all_in_the_order_they_came() -> None:
    async with flood() as crowd:
        await crowd.until_over(ALL)
    assert list(crowd.started) == list(range(ALL))
    assert len({crowd.started[number] for number in range(UNTHROTTLED_MAX)}) == 1
    assert crowd.throttled_starts() == [STARTS_PER_TICK] * (BEYOND // STARTS_PER_TICK) + [BEYOND % STARTS_PER_TICK]


async def test_one_that_comes_when_the_flood_is_over_overtakes_nobody() -> None:
    async with flood() as crowd:
        await crowd.until_started(UNTHROTTLED_MAX)
        crowd.opened.set()
        await asyncio.gather(*crowd.tasks[:UNTHROTTLED_MAX])
        # There is room for it now, but others still wait.
        assert crowd.admission.admitted < UNTHROTTLED_MAX
        assert len(crowd.started) < ALL
        late = crowd.come(a_scope())
        await crowd.until_over(ALL + 1)
    assert list(crowd.started) == list(range(ALL + 1))
    assert late == ALL


async def test_a_request_that_is_no_intent_does_not_wait() -> None:
    async with flood() as crowd:
        await crowd.until_started(UNTHROTTLED_MAX)
        came_in = crowd.iteration
        look = crowd.come(a_scope("GET"))
        await crowd.until_over(ALL + 1)
    assert crowd.started[look] == came_in + 1
    assert list(crowd.started)[-1] != look


async def test_one_that_is_cut_off_while_it_waits_gives_its_place_back_and_takes_no_turn() -> None:
    async with flood() as crowd:
        await crowd.until_started(UNTHROTTLED_MAX)
        cut_off = crowd.tasks[UNTHROTTLED_MAX + STARTS_PER_TICK :][: 4 * STARTS_PER_TICK]
        for task in cut_off:
            task.cancel()
        await asyncio.gather(*cut_off, return_exceptions=True)
        assert crowd.admission.admitted == ALL - len(cut_off)
        await crowd.until_over(ALL - len(cut_off))
    left = BEYOND - len(cut_off)
    assert crowd.throttled_starts() == [STARTS_PER_TICK] * (left // STARTS_PER_TICK) + [left % STARTS_PER_TICK]
