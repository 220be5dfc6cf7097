"""Members of a group commit that write one row each, or fail in the way that their name says."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.engine import Database
from shared.database.group_commit import GroupCommit
from shared.database.tables import idempotency_keys
from shared.errors import PaymentInProgress
from shared.ids import new_id


async def write(connection: AsyncConnection, now: datetime, members: Sequence[str]) -> list[str | PaymentInProgress]:
    """One row per member; `refused` is refused by us, `poison` by the database; `defect` and `wrong` are defects."""
    answers: list[str | PaymentInProgress] = []
    for member in members:
        if member == "refused":
            answers.append(PaymentInProgress(None))
            continue
        if member == "defect":
            raise KeyError(member)
        if member == "wrong":
            await connection.execute(text("SELEC 1"))
        key = None if member == "poison" else member
        row = {"scope": "s", "key": key, "fingerprint": "f", "object_id": new_id(), "created_at": now}
        await connection.execute(insert(idempotency_keys), row)
        answers.append(member.upper())
    return answers


async def written(database: Database) -> set[str]:
    async with database.read() as connection:
        return set((await connection.execute(select(idempotency_keys.c.key))).scalars())


def commit_of(database: Database, **options: Any) -> GroupCommit[str, str]:
    return GroupCommit(database, write, **({"batch_max": 100, "queue_max": 1000} | options))


def submitted(commit: GroupCommit[str, str], *members: str) -> list[asyncio.Task[str]]:
    """The members, all of them queued when this returns."""
    loop = asyncio.get_running_loop()
    return [asyncio.Task(commit.submit(member), loop=loop, eager_start=True) for member in members]


async def outcomes(tasks: Sequence[asyncio.Task[str]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)
