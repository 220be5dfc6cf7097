"""A short piece of work with the database that a cancel does not tear apart."""

import asyncio
from collections.abc import Coroutine
from typing import Any

# Seconds that a cancel waits at most: a database that hangs must not hold up a shutdown.
ENDS_WITHIN_S = 1.0


async def uninterrupted[T](work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` comes to. If it is cancelled meanwhile, it ends first, within a second.

    For what looks at the database again and again until the process stops. The thread of aiosqlite would else answer to
    a loop that is closed by then.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=ENDS_WITHIN_S)
        if not task.cancel() and not task.cancelled():
            # It ended, and nobody else asks how.
            task.exception()
        raise
