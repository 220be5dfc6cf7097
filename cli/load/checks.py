"""Checks a load when it is over: no payment may be lost, and none charged twice.

The checks use what any client sees over HTTP. In an installation that this command started they read the gateway's
ledger too.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sqlalchemy import func, select

from cli.load.client import Api, Document, NoAnswer, Unusable
from cli.load.payment_tally import PaymentTally
from shared.config.settings import Settings
from shared.database.engine import open_database
from shared.database.tables import gateway_ledger, payments
from shared.event_types import REFUND_EVENT_OF_REASON
from shared.lifecycle import PaymentStatus
from shared.simulation.ledger_entries import MOVES_MONEY, EntryKind
from shared.verify.balance_checks import balances
from shared.verify.kinds import KINDS
from shared.verify.ledger_checks import CHARGED
from shared.verify.scan import LEDGER, Found, Scan

# Histories that are read, with one request each.
HISTORIES_MAX = 100
HISTORIES_AT_ONCE = 10
EXAMPLES_MAX = 3
# Seconds. The whole ledger is counted, which takes longer than a request may.
LEDGER_STATEMENT_S = 60


@dataclass(frozen=True, slots=True)
class BrokenPromise:
    """A promise that was not kept, with the number of cases."""

    words: str
    count: int
    # The first ids of payments or orders.
    examples: tuple[str, ...]

    @property
    def text(self) -> str:
        """The broken promise in one line, for people."""
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.words} {self.count:,} found: {', '.join(self.examples)}{more}"


@dataclass(slots=True)
class LoadVerdict:
    """The result of the checks: what was compared, what was not looked at, and which promises were broken."""

    compared: list[str] = field(default_factory=list)
    not_looked_at: list[str] = field(default_factory=list)
    broken: list[BrokenPromise] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """No promise was broken."""
        return not self.broken

    def note(self, description: str, found: Sequence[str]) -> None:
        """Note a broken promise if `found`, the ids of payments or orders, is not empty."""
        if found:
            self.broken.append(BrokenPromise(description, len(found), tuple(found[:EXAMPLES_MAX])))


def judge_payments(payment_tally: PaymentTally, verdict: LoadVerdict, *, give_up_reason: str) -> None:
    """Check what the API's lists say of each payment. `give_up_reason` says why the wait for the ends was given up."""
    verdict.compared.append(
        f"{len(payment_tally.known):,} payments in the API's lists: each has ended, and no order has two live ones"
    )
    verdict.note("A payment was accepted, and later the API did not know it.", sorted(payment_tally.missing))
    verdict.note(f"A payment was accepted and never ended ({give_up_reason}).", sorted(payment_tally.open))
    verdict.note("A payment ended twice, differently.", sorted(payment_tally.changed))
    verdict.note("An order has more than one live payment.", sorted(payment_tally.paid_twice))


async def judge_histories(api: Api, token: str, payment_tally: PaymentTally, verdict: LoadVerdict) -> None:
    """Check the histories of some payments: the longest ones, and others evenly over the run."""
    chosen = choose_histories(payment_tally)
    at_once = asyncio.Semaphore(HISTORIES_AT_ONCE)

    async def read(payment_id: str) -> Document | None:
        async with at_once:
            try:
                return await api.get(f"/payments/{payment_id}/history", token)
            except (NoAnswer, Unusable):
                return None

    answers = await asyncio.gather(*(read(payment_id) for payment_id in chosen))
    read_ones = [(one, answer["history"]) for one, answer in zip(chosen, answers, strict=True) if answer is not None]
    wrong = [one for one, history in read_ones if not tells_one_end(history, payment_tally.known[one].sequence)]
    verdict.compared.append(f"{len(read_ones):,} of their histories: each has no gaps and one end")
    verdict.note("The history of a payment has gaps or several ends.", wrong)
    if unread := len(chosen) - len(read_ones):
        verdict.not_looked_at.append(f"{unread:,} histories that were asked for and not answered")


def choose_histories(payment_tally: PaymentTally) -> list[str]:
    """Return the ids of at most HISTORIES_MAX payments that have ended. Half of them have the longest histories."""
    ended = [payment_id for payment_id, known in payment_tally.known.items() if known.status.has_ended]
    longest = sorted(ended, key=lambda payment_id: -payment_tally.known[payment_id].sequence)[: HISTORIES_MAX // 2]
    others = [payment_id for payment_id in ended if payment_id not in set(longest)]
    room = HISTORIES_MAX - len(longest)
    return longest + others[:: max(1, -(-len(others) // room))]


def tells_one_end(history: Sequence[dict[str, Any]], sequence: int) -> bool:
    """Return whether the history is complete.

    It must be numbered without a gap up to `sequence`, each move must begin where the last one ended, and after the
    move that ends the payment only refunds may come.
    """
    has_ended = [PaymentStatus(move["new_status"]).has_ended for move in history]
    return (
        [move["sequence"] for move in history] == list(range(1, sequence + 1))
        and all(later["previous_status"] == earlier["new_status"] for earlier, later in pairwise(history))
        and True in has_ended
        and all(move.get("reason") in REFUND_EVENT_OF_REASON for move in history[has_ended.index(True) + 1 :])
    )


def note_what_a_target_hides(verdict: LoadVerdict) -> None:
    """Note what can be checked only in an installation that this command started."""
    verdict.not_looked_at += [
        "the gateway's ledger, which no API shows: a double charge that left the payments right would not be found",
        "the webhooks: no receiver of this command is registered there",
    ]


async def judge_ledger(settings: Settings, verdict: LoadVerdict) -> None:
    """Compare the payments with the gateway's ledger, in the database of an installation that this command started."""
    database = open_database(settings, statement_s=LEDGER_STATEMENT_S)
    try:
        async with database.read() as connection:
            charges = (
                await connection.execute(select(func.count()).where(gateway_ledger.c.kind.in_(MOVES_MONEY)))
            ).scalar_one()
            completed = (
                await connection.execute(select(func.count()).where(payments.c.status.in_(CHARGED)))
            ).scalar_one()
            paid_back = (
                await connection.execute(select(func.count()).where(gateway_ledger.c.kind == EntryKind.REFUND))
            ).scalar_one()
        scan = Scan(database, Found(shown_max=EXAMPLES_MAX))
        await scan.of_payments((*LEDGER, balances()))
    finally:
        await database.dispose()
    for kind, count in scan.found.totals.items():
        examples = tuple(ids["payment_id"] for ids in scan.found.shown[kind])
        verdict.broken.append(BrokenPromise(KINDS[kind].words, count, examples))
    verdict.compared.append(f"{charges:,} charges in the gateway's ledger with {completed:,} COMPLETED payments")
    if paid_back:
        verdict.compared.append(f"{paid_back:,} refunds in the gateway's ledger with the refunds and the amounts")
