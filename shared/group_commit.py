"""Many writers, one transaction: requests that arrive while a commit runs share the next one.

It owns the transaction and nothing else: what is written, and what a result means, is the caller's function.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from time import monotonic

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db import Database
from shared.errors import CommitUnknown, DatabaseUnavailable, Overloaded, PaymentsError, ValueRefused, WriteConflict

REST_MAX_S = 0.1  # a database that hangs is no reason to rest longer

log = structlog.get_logger(__name__)

type Write[M, R] = Callable[[AsyncConnection, datetime, Sequence[M]], Awaitable[Sequence[R | PaymentsError]]]
"""Writes a batch inside the open transaction, going by the given moment; answers in the order of the members.

An error *returned* is that member's answer; an error *raised* rolls the whole batch back.
"""


@dataclass(frozen=True, slots=True)
class _Waiting[M, R]:
    member: M
    answer: asyncio.Future[R]


class GroupCommit[M, R]:
    """A queue of members and the one task that commits them, at most `batch_max` per transaction.

    A member handed over is never withdrawn, also if the one who waits for it leaves. After a transaction
    the next begins no sooner than `rest` times as long as that one took: a member that comes alone waits for nobody,
    a stream makes few large commits, and the busier the machine the larger.
    """

    def __init__(
        self,
        database: Database,
        write: Write[M, R],
        *,
        batch_max: int,
        queue_max: int,
        rest: float = 0.0,
        committed: Callable[[Sequence[R]], None] = lambda _results: None,
    ) -> None:
        self._database = database
        self._write = write
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._rest = rest
        self._rests_until = -inf  # monotonic
        self._committed = committed
        self._queue: deque[_Waiting[M, R]] = deque()
        self._arrived = asyncio.Event()
        self._closing = False

    @property
    def queued(self) -> int:
        """Members that wait for their transaction to begin."""
        return len(self._queue)

    async def submit(self, member: M) -> R:
        """What `write` answered for `member`, once that is committed.

        Raises what it answered if that is an error; Overloaded at once if the queue is full; DatabaseUnavailable,
        ValueRefused or CommitUnknown as the transaction ended.
        """
        if self._closing or len(self._queue) >= self._queue_max:
            raise Overloaded(f"{len(self._queue)} already wait")
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(member, answer))
        self._arrived.set()
        return await asyncio.shield(answer)

    async def run(self) -> None:
        """Commit what arrives until `close`, then what is still queued."""
        while not (self._closing and not self._queue):
            await self.run_once()

    async def run_once(self) -> int:
        """Wait for members and settle one batch of them; returns how many."""
        if not self._queue and not self._closing:
            self._arrived.clear()
            await self._arrived.wait()
        if not self._closing and (early_s := self._rests_until - monotonic()) > 0:
            await asyncio.sleep(early_s)
        batch = [self._queue.popleft() for _ in range(min(self._batch_max, len(self._queue)))]
        if batch:
            began_at = monotonic()
            await self._settle(batch)
            ended_at = monotonic()
            self._rests_until = ended_at + min(REST_MAX_S, self._rest * (ended_at - began_at))
        return len(batch)

    def close(self) -> None:
        """Take nothing more; `run` returns when the queue is empty."""
        self._closing = True
        self._arrived.set()

    async def _settle(self, batch: list[_Waiting[M, R]], *, again: bool = True) -> None:
        """Give every member of the batch an answer or an error: one bad row never fails strangers."""
        try:
            await self._transact(batch)
        except WriteConflict as error:
            log.info("group_commit.conflict", members=len(batch), error=str(error))
            if again:
                await self._settle(batch, again=False)
            elif len(batch) > 1:
                await self._settle_one_by_one(batch)
            else:
                _fail(batch, error)
        except (DatabaseUnavailable, CommitUnknown) as error:
            log.warning("group_commit.failed", members=len(batch), error=repr(error))
            _fail(batch, error)
        except (SQLAlchemyError, ValueError, OverflowError) as error:
            if len(batch) > 1:
                await self._settle_one_by_one(batch)
            else:
                log.warning("group_commit.value_refused", error=type(error).__name__)
                _fail(batch, ValueRefused("the database refused a value"))
        except BaseException as error:
            _fail(batch, DatabaseUnavailable(type(error).__name__))
            raise

    async def _settle_one_by_one(self, batch: list[_Waiting[M, R]]) -> None:
        log.info("group_commit.one_by_one", members=len(batch))
        for waiting in batch:
            await self._settle([waiting])

    async def _transact(self, batch: list[_Waiting[M, R]]) -> None:
        async with self._database.transaction() as connection:
            now = await self._database.clock.now(connection)
            answers = await self._write(connection, now, [waiting.member for waiting in batch])
        for waiting, answer in zip(batch, answers, strict=True):
            if isinstance(answer, PaymentsError):
                _fail([waiting], answer)
            elif not waiting.answer.done():
                waiting.answer.set_result(answer)
        self._committed([answer for answer in answers if not isinstance(answer, PaymentsError)])


def _fail[M, R](batch: Sequence[_Waiting[M, R]], error: PaymentsError) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
            waiting.answer.exception()  # its client may have left: then nobody else would look at it
