"""Waits in service time that are in no row: those of the gateway, and what a process remembers until a moment.

They follow the clock when its speed changes, and end at once when it is advanced past them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Never

import structlog

from shared.broker.client import Broker
from shared.broker.sleepers import Sleepers, say_sleepers
from shared.database.engine import Database
from shared.database.uninterrupted import uninterrupted
from shared.errors import BrokerUnavailable, DatabaseUnavailable
from shared.ids import new_id

log = structlog.get_logger(__name__)

# Seconds between two looks at the clock: a change of its speed counts two seconds after it was written. While the clock
# is advanced, it waits for what waits here.
LOOK_EVERY_S, LOOK_EVERY_S_ADVANCING = 0.5, 0.02
# Sleepers that wake within so much time are woken together.
TOGETHER_S = 0.1
# Seconds by which the clock of the database is corrected at most by better answers: more is a clock that was set.
SET_BY_S = 0.5
# Seconds of real time: what is left of a wait because of rounding.
ROUNDING_S = 1e-5


@dataclass(frozen=True, slots=True)
class _Line:
    """Service time as a function of the monotonic clock: cheap enough for every payment in the gateway.

    `real_at_0_s` and `service_at_0_s` are what both times were when the monotonic clock stood at 0, in Unix seconds.
    """

    real_at_0_s: float
    service_at_0_s: float
    speed: float

    def now_s(self) -> float:
        return self.service_at_0_s + monotonic() * self.speed


class ServiceTimer:
    """Wakes what waits for a moment of service time. Without `run` it does not notice that the clock has changed.

    While the clock is advanced, it says in `broker` what sleeps here.
    """

    def __init__(self, database: Database, broker: Broker) -> None:
        self._database = database
        self._broker = broker
        self._name = str(new_id())
        self._known = database.clock.time
        self._line = self._read_line()
        self._has_looked = False
        # The sleepers, each with the moment of service time until which it sleeps, in Unix seconds.
        self._sleepers: dict[asyncio.Future[None], float] = {}
        self._listeners: list[Callable[[], None]] = []
        self._moments: list[Callable[[], float | None]] = []

    def now(self) -> datetime:
        """Return the service time by what was read last."""
        return datetime.fromtimestamp(self.now_s(), UTC)

    def now_s(self) -> float:
        """Return the service time in Unix seconds."""
        return self._line.now_s()

    def real_s(self, seconds: float) -> float:
        """Return in how many seconds of real time so many seconds of service time pass."""
        return seconds / self._line.speed

    def when_changed(self, listener: Callable[[], None], next_moment_s: Callable[[], float | None]) -> None:
        """Call `listener` whenever the clock has changed, so that it looks again at what it waits for.

        `next_moment_s` returns the moment for which it waits, as `now_s` does, or None.
        """
        self._listeners.append(listener)
        self._moments.append(next_moment_s)

    async def sleep(self, seconds: float) -> None:
        """Wait until so many seconds of service time have passed."""
        if not self._has_looked:
            await uninterrupted(self.look())
        until_s, left_s = self._line.now_s() + seconds, seconds / self._line.speed
        loop = asyncio.get_running_loop()
        while left_s > ROUNDING_S:
            woken: asyncio.Future[None] = loop.create_future()
            alarm = loop.call_later(left_s, _wake, woken)
            self._sleepers[woken] = until_s
            try:
                await woken
            finally:
                alarm.cancel()
                until_s = self._sleepers.pop(woken)
            left_s = (until_s - self._line.now_s()) / self._line.speed

    async def run(self) -> Never:
        """Look at the clock until cancelled. While the database does not answer, what waits goes by what is known."""
        while True:
            await self.look()
            time = self._database.clock.time
            if time.is_advancing:
                await self._say_sleepers()
            to_anchor_s = (time.anchored_at - self._database.clock.real_now()).total_seconds()
            until_look_s = LOOK_EVERY_S_ADVANCING if time.is_advancing else LOOK_EVERY_S
            # A new speed counts from its anchor on.
            await asyncio.sleep(min(until_look_s, to_anchor_s) if to_anchor_s > 0 else until_look_s)

    async def look(self) -> None:
        """Look at the clock once, and wake what waits if it has changed."""
        try:
            async with self._database.read() as connection:
                await self._database.clock.now(connection)
        except DatabaseUnavailable as error:
            # Safe: the sleepers go by the clock as it was, and the next look corrects that.
            log.warning("clock.not_read", error=str(error))
        before, self._line = self._line, self._read_line()
        set_by_s = self._line.real_at_0_s - before.real_at_0_s
        if abs(set_by_s) > SET_BY_S or not self._has_looked:
            # The clock of the database was set, or is known now. Nothing sleeps for longer because of that.
            self._sleepers = {each: until_s + set_by_s * before.speed for each, until_s in self._sleepers.items()}
        self._has_looked = True
        if self._known == self._database.clock.time and before.speed == self._line.speed:
            return
        self._known = self._database.clock.time
        for woken in self._sleepers:
            _wake(woken)
        for listener in self._listeners:
            listener()

    def _read_line(self) -> _Line:
        clock = self._database.clock
        real_now, now_s = clock.real_now(), monotonic()
        speed = clock.time.speed_at(real_now)
        return _Line(real_now.timestamp() - now_s, clock.time.at(real_now).timestamp() - now_s * speed, speed)

    async def _say_sleepers(self) -> None:
        seen_at = self._database.clock.real_now()
        moments_s = list(self._sleepers.values())
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


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
