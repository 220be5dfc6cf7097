"""Waiting in tests: for a condition and never longer than a bound, instead of sleeping and hoping."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import overload

from api.single_flight import TASK_NAME

POLL_S = 0.005


def calls_running() -> int:
    """The calls that are running in single flights of this loop."""
    return sum(task.get_name() == TASK_NAME for task in asyncio.all_tasks())


@overload
async def eventually[T](check: Callable[[], Awaitable[T]], timeout_s: float = 10) -> T: ...
@overload
async def eventually[T](check: Callable[[], T], timeout_s: float = 10) -> T: ...
async def eventually[T](check: Callable[[], Awaitable[T] | T], timeout_s: float = 10) -> T:
    """The first true answer of `check` (a function or a coroutine function).

    Raises AssertionError with the last answer when there is none within `timeout_s`.
    """
    deadline = monotonic() + timeout_s
    while True:
        answer = check()
        value: T = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        assert monotonic() < deadline, f"not within {timeout_s} s: {inspect.getsource(check).strip()} (last: {value!r})"
        await asyncio.sleep(POLL_S)
