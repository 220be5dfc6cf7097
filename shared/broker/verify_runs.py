"""Verifications that an admin asks of the workers: one at a time, and how far it is.

They are for people who watch. Redis may forget them: the report of one that ended is in the database.
"""

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from time import time
from typing import Any, Self
from uuid import UUID

import orjson
from pydantic import TypeAdapter
from redis.asyncio.client import Pipeline

from shared.broker.client import Broker
from shared.broker.stored import Count, Moment, read_stored
from shared.database.clock import rfc3339
from shared.ids import made_at_s

# The run that is under way, as it was asked for. Whoever does it says so once a second, or it has failed.
CURRENT_KEY = "payments:verify:current"
# The run that was asked for last: only who asks writes it.
ASKED_KEY = "payments:verify:asked"
# The run that a worker has taken last, as it is: only workers write it.
LAST_KEY = "payments:verify:last"
# With the id of a run: the worker that does it.
TAKEN_KEY = "payments:verify:taken:"
# Seconds that a run has to be taken by a worker, and after each word of it.
ALIVE_S = 15
# Seconds for which it is known how a run ended, and who has taken it: longer than it may take.
KEPT_S = 2 * 3600
REDIS_TIMEOUT_S = 2.0
# Seconds by which the clocks of two machines may differ.
CLOCKS_DIFFER_S = 60

NO_WORKER = "No worker took it. Is one alive?"


class VerifyStatus(StrEnum):
    """How far a run is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRun:
    """A verification that was asked for at `asked_at`, in service time.

    `worker` does it: None = none has taken it yet. It has checked so many payments and idempotency keys of `total`,
    which is None until they are counted. `failure` says why there is no report, in a sentence.
    """

    id: UUID
    asked_at: Moment
    status: VerifyStatus = VerifyStatus.WAITING
    worker: str | None = None
    checked: Count = 0
    total: Count | None = None
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the run as clients see it."""
        return {**asdict(self), "id": str(self.id), "asked_at": rfc3339(self.asked_at)}

    def lost(self) -> Self:
        """Return the run as one that nobody does any more."""
        gone = f"The worker {self.worker} is gone, or Redis did not answer it." if self.worker else NO_WORKER
        return replace(self, status=VerifyStatus.FAILED, failure=gone)


_RUN = TypeAdapter(VerifyRun)


async def ask_for_verify(broker: Broker, run: VerifyRun) -> VerifyRun:
    """Ask the workers for a run, and return it; while another is under way, return that one.

    Raises BrokerUnavailable.
    """

    def ask(pipe: Pipeline) -> None:
        pipe.set(CURRENT_KEY, _stored(run), nx=True, ex=ALIVE_S)
        _read(pipe)

    is_first, known = await broker.round_trip(ask, timeout_s=REDIS_TIMEOUT_S, is_transaction=True)
    if not is_first and (current := _known(*known)) is not None and _under_way(known[0]) is not None:
        return current

    def note(pipe: Pipeline) -> None:
        pipe.set(ASKED_KEY, _stored(run), ex=KEPT_S)
        if not is_first:
            # What stands there is no run that is under way.
            pipe.set(CURRENT_KEY, _stored(run), ex=ALIVE_S)

    await broker.round_trip(note, timeout_s=REDIS_TIMEOUT_S)
    return run


async def find_verify(broker: Broker) -> VerifyRun | None:
    """Return the run that was asked for last, at most two hours ago; None if there is none.

    Raises BrokerUnavailable.
    """
    [known] = await broker.round_trip(_read, timeout_s=REDIS_TIMEOUT_S)
    return _known(*known)


async def take_verify(broker: Broker, worker: str) -> VerifyRun | None:
    """Return the run that waits for a worker: this one does it now. None if none waits. Raises BrokerUnavailable."""
    [[current]] = await broker.round_trip(lambda pipe: pipe.mget([CURRENT_KEY]), timeout_s=REDIS_TIMEOUT_S)
    run = _under_way(current)
    if run is None or run.status is not VerifyStatus.WAITING:
        return None
    [is_mine] = await broker.round_trip(
        lambda pipe: pipe.set(_taken_key(run), worker, nx=True, ex=KEPT_S), timeout_s=REDIS_TIMEOUT_S
    )
    return replace(run, status=VerifyStatus.RUNNING, worker=worker) if is_mine else None


async def say_verify(broker: Broker, run: VerifyRun) -> bool:
    """Say how far a run is, or how it ended. Return False if another run was asked for. Raises BrokerUnavailable.

    A run that Redis has forgotten is known again, with its worker.
    """
    [[asked]] = await broker.round_trip(lambda pipe: pipe.mget([ASKED_KEY]), timeout_s=REDIS_TIMEOUT_S)
    of_asked = _run(asked)
    # The other one may have ended while this worker stood still.
    if of_asked is not None and of_asked.id > run.id:
        return False

    def retake(pipe: Pipeline) -> None:
        pipe.set(CURRENT_KEY, _stored(run), nx=True, ex=ALIVE_S)
        pipe.set(_taken_key(run), run.worker or "", nx=True, ex=KEPT_S)
        pipe.mget([CURRENT_KEY])

    *_, [current] = await broker.round_trip(retake, timeout_s=REDIS_TIMEOUT_S, is_transaction=True)
    of_current = _under_way(current)
    if of_current is not None and of_current.id != run.id:
        return False

    def say(pipe: Pipeline) -> None:
        pipe.set(LAST_KEY, _stored(run), ex=KEPT_S)
        if run.status is VerifyStatus.RUNNING:
            pipe.expire(CURRENT_KEY, ALIVE_S)
        else:
            pipe.delete(CURRENT_KEY)

    await broker.round_trip(say, timeout_s=REDIS_TIMEOUT_S, is_transaction=True)
    return True


def _stored(run: VerifyRun) -> bytes:
    return orjson.dumps(run.to_json())


def _taken_key(run: VerifyRun) -> str:
    return f"{TAKEN_KEY}{run.id}"


def _read(pipe: Pipeline) -> None:
    # A key of another type than a string is none for MGET, and an error for GET.
    pipe.mget([CURRENT_KEY, ASKED_KEY, LAST_KEY])


def _run(stored: bytes | None) -> VerifyRun | None:
    return read_stored(_RUN, stored)


def _under_way(stored: bytes | None) -> VerifyRun | None:
    """Return the current run. One that has ended, or is older than a run may become, was not put there by us."""
    run = _run(stored)
    if run is None or run.status in {VerifyStatus.DONE, VerifyStatus.FAILED}:
        return None
    asked_at_s = made_at_s(run.id)
    return run if asked_at_s is not None and -CLOCKS_DIFFER_S < time() - asked_at_s < KEPT_S else None


def _known(current: bytes | None, asked: bytes | None, last: bytes | None) -> VerifyRun | None:
    under_way, said = _under_way(current), _run(last)
    if under_way is not None:
        return said if said is not None and said.id == under_way.id else under_way
    newest = _run(asked)
    if newest is None or (said is not None and said.id >= newest.id):
        newest = said
    if newest is None or newest.status in {VerifyStatus.DONE, VerifyStatus.FAILED}:
        return newest
    return newest.lost()
