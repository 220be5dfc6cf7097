"""Asking the gateway for as long as a claim holds. This module does not know what is asked."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog

from shared.payments.outcomes import Release
from worker.gateway.protocol import OutcomeUnknown
from worker.slots import Interrupted, Slots

log = structlog.get_logger(__name__)

# Seconds until a gateway whose answer was lost is asked again.
ASK_AGAIN_S = 0.5


async def release_if_interrupted[O](work: Callable[[], Awaitable[O]], slots: Slots) -> O | Release:
    """Do `work`, and return what it ends with; Release if a shutdown interrupts `slots`."""
    try:
        async with slots.interruptible():
            return await work()
    except Interrupted:
        return Release()


async def ask_within_lease[O](
    ask: Callable[[], Awaitable[O]], *, lease_ends: float, slots: Slots, name: str, attempt: int
) -> O | Release | None:
    """Call `ask` until it is known what happened, and return that; Release if a shutdown interrupts `slots`.

    Return None if no answer came while the lease held (`lease_ends`, monotonic, in seconds): the next claim asks again.
    `name` and `attempt` are what the log calls the work and the number of the claim.
    """
    outcome_unknown, lease_abandoned = f"{name}.outcome_unknown", f"{name}.lease_abandoned"
    while monotonic() < lease_ends and not slots.is_interrupting:
        try:
            return await ask()
        except OutcomeUnknown as error:
            log.warning(outcome_unknown, attempt=attempt, error=str(error))
        await asyncio.sleep(ASK_AGAIN_S)
    # The interruption may have been taken for an error of the gateway.
    if slots.is_interrupting:
        return Release()
    log.warning(lease_abandoned, attempt=attempt)
    return None
