"""The rules as a worker knows them, and which of them fires on a call.

The rules are read again within a second of a change. Without any rule, a call asks nothing of the database unless it
may be repeated.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import structlog

from shared.database.engine import Database
from shared.database.group_commit import GroupCommit
from shared.database.uninterrupted import uninterrupted
from shared.errors import DatabaseUnavailable
from shared.simulation.calls import Call
from shared.simulation.matching import fired_by, fires_on
from shared.simulation.rule_store import live_rules, rules_version
from shared.simulation.rule_uses import Claimant, Use, find_uses, key_of, write_uses
from shared.simulation.rules import Fired, Rule
from worker.gateway.ledger_errors import ledger_errors_as_unknown

# Seconds between two looks for changes: what has changed is known everywhere within a second.
LOOK_EVERY_S = 0.5
# As for the ledger: few large commits, because the wait is short beside the delay of a gateway.
LINGER_FACTOR = 8.0

log = structlog.get_logger(__name__)


class RuleBook:
    """The rules of the database. Needs `run`. Uses of many payments share a transaction.

    Random numbers are drawn for `seed`.
    """

    def __init__(
        self,
        database: Database,
        *,
        seed: str,
        batch_max: int,
        queue_max: int,
    ) -> None:
        self._database = database
        self._seed = seed
        # Those that can fire, the newest first.
        self._rules: Sequence[Rule] = ()
        # The number of changes of the rules that are known; None = the rules were never read.
        self._version: int | None = None
        self._reading = asyncio.Lock()
        self._uses: GroupCommit[Claimant, Use] = GroupCommit(
            database, write_uses, batch_max=batch_max, queue_max=queue_max, linger_factor=LINGER_FACTOR
        )

    async def fired(self, call: Call) -> Fired | None:
        """Return what a rule makes of the call, the same when it is repeated; None if no rule fires.

        What a rule with `times` makes of it is on record when this returns. Raises OutcomeUnknown if that fails.
        """
        with ledger_errors_as_unknown():
            if self._version is None:
                await self._first_look()
            if call.may_be_repeated and (found := await self._use_of(call)) is not None:
                return found
            counted, otherwise = self._firing(call)
            if not counted:
                return otherwise
            use = await self._uses.submit(Claimant(key_of(call), tuple(counted), otherwise))
        self._forget(use.ended)
        return use.fired

    async def run(self) -> None:
        """Follow the changes of the rules and write uses until `close`, then write what is still queued."""
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(self._follow_changes())
            await self._uses.run()
            looking.cancel()

    def close(self) -> None:
        """Take no more uses; `run` returns when everything is written."""
        self._uses.close()

    async def refresh(self) -> None:
        """Look whether the rules have changed, and read them if so. Raises DatabaseUnavailable."""
        async with self._database.read() as connection:
            now = await self._database.clock.now(connection)
            # Before the rules: what changes in between is read twice, and not never.
            version = await rules_version(connection)
            if version != self._version:
                self._rules = await live_rules(connection, now)
                log.info("rules.read", rules=len(self._rules), version=version)
        self._version = version

    async def _follow_changes(self) -> None:
        while True:
            try:
                await uninterrupted(self.refresh())
            except DatabaseUnavailable as error:
                # Safe: the rules that are known go on to hold, and nothing can be claimed meanwhile.
                log.warning("rules.not_read", error=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _first_look(self) -> None:
        async with self._reading:
            if self._version is None:
                await self.refresh()

    async def _use_of(self, call: Call) -> Fired | None:
        key = key_of(call)
        async with self._database.read() as connection:
            return (await find_uses(connection, [key])).get(key)

    def _firing(self, call: Call) -> tuple[list[Fired], Fired | None]:
        """Return what each rule with `times` makes of the call that may fire, and what fires if none of them does."""
        counted: list[Fired] = []
        if not self._rules:
            return counted, None
        now = self._now()
        for rule in self._rules:
            if not fires_on(rule, call, seed=self._seed, now=now):
                continue
            fired = fired_by(rule, call, seed=self._seed)
            if rule.times is None:
                return counted, fired
            counted.append(fired)
        return counted, None

    def _now(self) -> datetime:
        """Return the service time by the last answer of the database: every look asks."""
        clock = self._database.clock
        return clock.time.at(clock.real_now())

    def _forget(self, ended: frozenset[UUID]) -> None:
        """Ask no more for rules that are used up: every call would wait for a transaction in vain."""
        if ended:
            self._rules = [rule for rule in self._rules if rule.id not in ended]
