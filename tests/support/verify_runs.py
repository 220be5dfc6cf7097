"""Verifications that tests ask for."""

from dataclasses import replace
from datetime import UTC, datetime

from shared.broker.client import Broker
from shared.broker.verify_runs import VerifyRun, VerifyStatus, ask_for_verify, find_verify, say_verify, take_verify
from shared.ids import new_id


def asked() -> VerifyRun:
    """A run that is asked for now."""
    return VerifyRun(id=new_id(), asked_at=datetime.now(UTC).replace(microsecond=0))


async def known(broker: Broker) -> VerifyRun:
    """The run that Redis knows; there must be one."""
    run = await find_verify(broker)
    assert run is not None
    return run


async def forget(broker: Broker, *keys: str) -> None:
    """Let Redis forget these keys."""
    await broker.round_trip(lambda pipe: pipe.delete(*keys), timeout_s=1)


async def ended(broker: Broker) -> VerifyRun:
    """A run that was asked for, taken and done."""
    await ask_for_verify(broker, asked())
    taken = await take_verify(broker, "one")
    assert taken is not None
    done = replace(taken, status=VerifyStatus.DONE)
    assert await say_verify(broker, done)
    return done
