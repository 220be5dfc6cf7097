"""Group commit: writes that arrive while a commit runs share the next transaction.

It owns the transaction and nothing else: the caller's function writes, and says what a result means.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from time import monotonic

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.engine import Database
from shared.errors import (
    CommitUnknown,
    DatabaseUnavailable,
    Overloaded,
    PaymentsError,
    StatementFailed,
    ValueRefused,
    WriteConflict,
)

# Seconds to linger at most, however long a transaction took: it may be long because the database hung.
LINGER_MAX_S = 0.1
# Members come alone while at most a tenth of the last MEAN_OF or so transactions had more than one: lingering would
# gather nothing.
SHARED_MAX, MEAN_OF = 0.1, 16

log = structlog.get_logger(__name__)

type Write[M, R] = Callable[[AsyncConnection, datetime, Sequence[M]], Awaitable[Sequence[R | PaymentsError]]]
"""Writes a batch inside the open transaction, at the given moment; returns the answers in the order of the members.

An error *returned* is the answer of that member. An error *raised* rolls the whole batch back.
"""


@dataclass(frozen=True, slots=True)
class _Waiting[M, R]:
    member: M
    answer: asyncio.Future[R]


class GroupCommit[M, R]:
    """A queue of members and the one task (`run`) that commits them, at most `batch_max` per transaction.

    A member that was submitted is never withdrawn, even if its caller is cancelled. After each commit `committed` is
    called with the answers that are no errors. `committed` must not raise: an error in it ends `run`, or writes the
    batch again.

    In a stream of members the next transaction begins no sooner than `linger_factor` times as long as the last one
    took. That makes few large commits, and they grow with the load. While members come alone, none waits for another.
    """

    def __init__(
        self,
        database: Database,
        write: Write[M, R],
        *,
        batch_max: int,
        queue_max: int,
        linger_factor: float = 0.0,
        committed: Callable[[Sequence[R]], None] = lambda _results: None,
    ) -> None:
        self._database = database
        self._write = write
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._linger_factor = linger_factor
        self._lingers_until = -inf
        # The part of the last transactions that members shared.
        self._shared = 0.0
        self._committed = committed
        self._queue: deque[_Waiting[M, R]] = deque()
        self._arrived = asyncio.Event()
        self._closing = False

    @property
    def queued(self) -> int:
        """Members that wait for their transaction to begin."""
        return len(self._queue)

    async def submit(self, member: M) -> R:
        """Queue `member` and return the answer of `write` for it, once that is committed.

        Raises the answer if that is an error; Overloaded at once if the queue is full or closed; DatabaseUnavailable,
        ValueRefused or CommitUnknown as the transaction ended.
        """
        if self._closing or len(self._queue) >= self._queue_max:
            raise Overloaded(f"The queue takes nothing more: {len(self._queue)} members wait. Try again later.")
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(member, answer))
        self._arrived.set()
        return await asyncio.shield(answer)

    async def run(self) -> None:
        """Commit what arrives until `close`, then what is still queued."""
        while not (self._closing and not self._queue):
            await self.run_once()

    async def run_once(self) -> int:
        """Wait for members and commit one batch of them. Return the size of the batch."""
        if not self._queue and not self._closing:
            self._arrived.clear()
            await self._arrived.wait()
        if not self._closing and (early_s := self._lingers_until - monotonic()) > 0:
            await asyncio.sleep(early_s)
        batch = [self._queue.popleft() for _ in range(min(self._batch_max, len(self._queue)))]
        if batch:
            began_at = monotonic()
            await self._commit_batch(batch)
            ended_at = monotonic()
            self._shared += ((len(batch) > 1) - self._shared) / MEAN_OF
            if self._shared > SHARED_MAX:
                self._lingers_until = ended_at + min(LINGER_MAX_S, self._linger_factor * (ended_at - began_at))
        return len(batch)

    def close(self) -> None:
        """Take nothing more; `run` returns when the queue is empty."""
        self._closing = True
        self._arrived.set()

    async def _commit_batch(self, batch: list[_Waiting[M, R]], *, again: bool = True) -> None:
        """Give every member of the batch an answer or an error. One refused value never fails the other members."""
        try:
            await self._transact(batch)
        except WriteConflict as error:
            log.info("group_commit.conflict", members=len(batch), error=str(error))
            if again:
                await self._commit_batch(batch, again=False)
            elif len(batch) > 1:
                await self._commit_one_by_one(batch)
            else:
                _fail(batch, error)
        except (ValueRefused, StatementFailed) as error:
            if len(batch) > 1:
                await self._commit_one_by_one(batch)
            else:
                log.warning("group_commit.refused", error=type(error).__name__)
                _fail(batch, error)
        except (DatabaseUnavailable, CommitUnknown) as error:
            log.warning("group_commit.failed", members=len(batch), error=repr(error))
            _fail(batch, error)
        except BaseException as error:
            # A defect, or the end of the process. It may have come while the COMMIT was on its way.
            _fail(batch, CommitUnknown(type(error).__name__))
            raise

    async def _commit_one_by_one(self, batch: list[_Waiting[M, R]]) -> None:
        log.info("group_commit.one_by_one", members=len(batch))
        for waiting in batch:
            await self._commit_batch([waiting])

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
            # This marks the error as retrieved: without it asyncio logs an error if the caller was cancelled.
            waiting.answer.exception()
