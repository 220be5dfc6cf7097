"""The uses of rules with `times`: the calls on which they have fired, each written before the gateway acts.

A use is written in the transaction that counts it, so a rule never fires more often than it may, however many workers
there are; and a call that is repeated after a kill finds its use, and does the same again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, case, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.simulation_tables import simulation_rule_uses, simulation_rules
from shared.errors import WriteConflict
from shared.simulation.calls import Call
from shared.simulation.rules import Fired, read_fired


class CallKey(NamedTuple):
    """The primary key of a use: a call fires one rule, once."""

    target_id: UUID
    operation: str
    operation_number: int
    call_number: int


@dataclass(frozen=True, slots=True)
class Claimant:
    """A call on which rules with `times` may fire, the newest first.

    If all of them are used up, what happens is `otherwise`: a rule without `times` fires, or none.
    """

    key: CallKey
    counted: tuple[Fired, ...]
    otherwise: Fired | None


@dataclass(frozen=True, slots=True)
class Use:
    """What has fired on a call, and which of the rules that it asked for were found to be at their end."""

    fired: Fired | None
    ended: frozenset[UUID] = frozenset()


def key_of(call: Call) -> CallKey:
    """Return the key of the use of a call."""
    return CallKey(call.refund_id or call.payment_id, call.operation.value, call.operation_number or 0, call.number)


_KEY = [simulation_rule_uses.c[name] for name in CallKey._fields]
# Without a target it compiles on SQLite too.
_INSERT = insert(simulation_rule_uses).on_conflict_do_nothing().returning(*_KEY)


async def find_uses(connection: AsyncConnection, keys: Iterable[CallKey]) -> dict[CallKey, Fired]:
    """Return what has fired on those of the calls that have a use."""
    wanted = [tuple(key) for key in keys]
    if not wanted:
        return {}
    columns = [*_KEY, simulation_rule_uses.c.rule_id, simulation_rule_uses.c.fired]
    found = await connection.execute(select(*columns).where(tuple_(*_KEY).in_(wanted)))
    return {_key(row): read_fired(row.rule_id, row.fired) for row in found}


async def write_uses(connection: AsyncConnection, now: datetime, claimants: Sequence[Claimant]) -> Sequence[Use]:
    """Decide which rule fires on each of the calls, and write its use. Return the uses in the order of `claimants`.

    A call that has a use already keeps it. Until the end of the transaction nobody else uses these rules.
    """
    left = await _lock(connection, {fired.rule_id for each in claimants for fired in each.counted}, now)
    found = await find_uses(connection, {each.key for each in claimants})
    chosen: dict[CallKey, Fired] = {}
    for each in claimants:
        free = next((fired for fired in each.counted if left[fired.rule_id] > 0), None)
        if each.key not in found and each.key not in chosen and free is not None:
            chosen[each.key] = free
            left[free.rule_id] -= 1
    written = await _insert(connection, chosen, now)
    await _count(connection, Counter(chosen[key].rule_id for key in written), now)
    # Another process was faster with the same call, which it can only be after its lease.
    found |= await find_uses(connection, chosen.keys() - written)
    ended = frozenset(rule_id for rule_id, count in left.items() if count <= 0)
    return [
        Use(
            found.get(each.key) or chosen.get(each.key) or each.otherwise, ended & {one.rule_id for one in each.counted}
        )
        for each in claimants
    ]


async def _lock(connection: AsyncConnection, rule_ids: Iterable[UUID], now: datetime) -> dict[UUID, int]:
    """Lock the rules, and return how often each can still fire."""
    ids = sorted(rule_ids)
    rules = simulation_rules.c
    columns = [rules.id, rules.times, rules.used, rules.expires_at, rules.deleted_at]
    # In the order of the ids, because that is the order of the locks.
    found = await connection.execute(select(*columns).where(rules.id.in_(ids)).order_by(rules.id).with_for_update())
    return dict.fromkeys(ids, 0) | {row.id: _left(row, now) for row in found}


def _left(row: Row[Any], now: datetime) -> int:
    has_expired = row.expires_at is not None and row.expires_at <= now
    return 0 if has_expired or row.deleted_at is not None else row.times - row.used


async def _insert(connection: AsyncConnection, chosen: Mapping[CallKey, Fired], now: datetime) -> set[CallKey]:
    """Insert the uses. Return the keys of those that were not there."""
    if not chosen:
        return set()
    # Every writer inserts in the same order, so that two batches never deadlock.
    rows = [
        key._asdict() | {"rule_id": fired.rule_id, "fired": fired.to_json(), "created_at": now}
        for key, fired in sorted(chosen.items(), key=lambda item: item[0])
    ]
    return {_key(row) for row in await connection.execute(_INSERT, rows)}


async def _count(connection: AsyncConnection, counts: Mapping[UUID, int], now: datetime) -> None:
    """Count the uses of each rule. Raises WriteConflict, with nothing written, rather than let one fire too often."""
    rules = simulation_rules.c
    for rule_id, count in sorted(counts.items()):
        used = rules.used + count
        counted = await connection.execute(
            update(simulation_rules)
            .where(rules.id == rule_id, used <= rules.times)
            .values(used=used, used_up_at=case((used >= rules.times, now), else_=rules.used_up_at))
        )
        if counted.rowcount != 1:
            raise WriteConflict(f"the rule {rule_id} was used by another transaction")


def _key(row: Row[Any]) -> CallKey:
    return CallKey(*(getattr(row, name) for name in CallKey._fields))
