"""Waits in service time that are in no row: those of the gateway, and what a process remembers until a moment.

They follow the clock when its speed changes, and end at once when it is advanced past them.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Never

import structlog

from shared.broker.client import Broker
from shared.broker.sleepers import Sleepers, say_sleepers
from shared.database.engine import Database
from shared.errors import BrokerUnavailable, DatabaseUnavailable
from shared.ids import new_id

log = structlog.get_logger(__name__)

# Seconds between two looks at the clock: a change of its speed counts two seconds after it was written. While the clock
# is advanced, it waits for what waits here.
LOOK_EVERY_S, LOOK_EVERY_S_ADVANCING = 0.5, 0.02
# Sleepers that wake within so much time are woken together.
TOGETHER_S = 0.1


class ServiceTimer:
    """Wakes what waits for a moment of service time. Without `run` it does not notice that the clock has changed.

    While the clock is advanced, it says in `broker` what sleeps here.
    """

    def __init__(self, database: Database, broker: Broker) -> None:
        self._database = database
        self._broker = broker
        self._name = str(new_id())
        self._known = database.clock.time
        # The sleepers, each with the moment until which it sleeps.
        self._sleepers: dict[asyncio.Future[None], datetime] = {}
        self._listeners: list[Callable[[], None]] = []
        self._moments: list[Callable[[], float | None]] = []

    def now(self) -> datetime:
        """Return the service time by what was read last."""
        clock = self._database.clock
        return clock.time.at(clock.real_now())

    def now_s(self) -> float:
        """Return the service time as seconds, for what counts in seconds."""
        return self.now().timestamp()

    def real_s(self, seconds: float) -> float:
        """Return in how many seconds of real time so many seconds of service time have passed."""
        return self._real_s_until(self.now() + timedelta(seconds=seconds))

    def when_changed(self, listener: Callable[[], None], next_moment_s: Callable[[], float | None]) -> None:
        """Call `listener` whenever the clock has changed, so that it looks again at what it waits for.

        `next_moment_s` returns the moment for which it waits, as `now_s` does, or None.
        """
        self._listeners.append(listener)
        self._moments.append(next_moment_s)

    async def sleep(self, seconds: float) -> None:
        """Wait until so many seconds of service time have passed."""
        until = self.now() + timedelta(seconds=seconds)
        loop = asyncio.get_running_loop()
        while (left_s := self._real_s_until(until)) > 0:
            woken: asyncio.Future[None] = loop.create_future()
            alarm = loop.call_later(left_s, _wake, woken)
            self._sleepers[woken] = until
            try:
                await woken
            finally:
                alarm.cancel()
                del self._sleepers[woken]

    async def run(self) -> Never:
        """Look at the clock until cancelled. While the database does not answer, what waits goes by what is known."""
        while True:
            await self.look()
            is_advancing = self._database.clock.time.is_advancing
            if is_advancing:
                await self._say_sleepers()
            await asyncio.sleep(LOOK_EVERY_S_ADVANCING if is_advancing else LOOK_EVERY_S)

    async def look(self) -> None:
        """Look at the clock once, and wake what waits if it has changed."""
        try:
            async with self._database.read() as connection:
                await self._database.clock.now(connection)
        except DatabaseUnavailable as error:
            # Safe: the sleepers go by the clock as it was, and the next look corrects that.
            log.warning("clock.not_read", error=str(error))
        if self._known == self._database.clock.time:
            return
        self._known = self._database.clock.time
        for woken in self._sleepers:
            _wake(woken)
        for listener in self._listeners:
            listener()

    async def _say_sleepers(self) -> None:
        seen_at = self._database.clock.real_now()
        moments_s = [until.timestamp() for until in self._sleepers.values()]
        moments_s += [moment_s for each in self._moments if (moment_s := each()) is not None]
        first_s = min(moments_s, default=None)
        last_s = max((each for each in moments_s if first_s and each <= first_s + TOGETHER_S), default=None)
        sleepers = Sleepers(
            count=len(self._sleepers), seen_at_s=seen_at.timestamp(), wakes_at_s=first_s, wakes_until_s=last_s
        )
        try:
            await say_sleepers(self._broker, self._name, sleepers)
        except BrokerUnavailable as error:
            # Safe: the clock is not advanced meanwhile.
            log.warning("clock.sleepers_not_said", error=str(error))

    def _real_s_until(self, moment: datetime) -> float:
        clock = self._database.clock
        return clock.time.real_s_until(moment, clock.real_now())


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
