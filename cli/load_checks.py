"""Judges a load when it is over: was a payment lost, was one charged twice?

It says what it compared and where: over HTTP what any client sees, for a stack of our own the gateway's books as well.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sqlalchemy import func, select

from cli.load_book import Book
from cli.load_client import Api, Document, NoAnswer, Unusable
from cli.verify_kinds import KINDS
from cli.verify_scan import LEDGER, Found, Scan
from shared.config import Settings
from shared.db import open_database
from shared.lifecycle import PaymentStatus
from shared.models import gateway_ledger, payments
from worker.gateway.ledger import MOVES_MONEY

HISTORIES_MAX = 100  # that are read: one request each
HISTORIES_AT_ONCE = 10
EXAMPLES_MAX = 3
LEDGER_TIMEOUT_S = 60  # it is counted as a whole, which no request may do


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that was not kept."""

    words: str
    count: int
    examples: tuple[str, ...]  # ids to look for

    @property
    def text(self) -> str:
        """All of it in a line."""
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.count:,} {self.words}: {', '.join(self.examples)}{more}"


@dataclass(slots=True)
class Verdict:
    """What was compared, and what was not as promised."""

    compared: list[str] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Nothing lost, nothing charged twice."""
        return not self.broken

    def note(self, words: str, found: Sequence[str]) -> None:
        """Note a broken promise, if `found` has any payment or order."""
        if found:
            self.broken.append(Broken(words, len(found), tuple(found[:EXAMPLES_MAX])))


def judge_book(book: Book, verdict: Verdict, *, open_words: str) -> None:
    """What the API's lists say of every payment; `open_words` tell how long the ends were waited for."""
    verdict.compared.append(f"{len(book.known):,} payments in the API's lists: ended, one for each order")
    verdict.note("accepted and then unknown to the API", sorted(book.missing))
    verdict.note(f"accepted and never ended ({open_words})", sorted(book.open))
    verdict.note("ended twice, and differently", sorted(book.changed))
    verdict.note("orders with more than one live payment", sorted(book.paid_twice))


async def judge_histories(api: Api, token: str, book: Book, verdict: Verdict) -> None:
    """Read the histories of some payments: unusual ones first, then evenly over the run."""
    chosen = choose_histories(book)
    at_once = asyncio.Semaphore(HISTORIES_AT_ONCE)

    async def read(payment_id: str) -> Document | None:
        async with at_once:
            try:
                return await api.get(f"/payments/{payment_id}/history", token)
            except (NoAnswer, Unusable):
                return None

    answers = await asyncio.gather(*(read(payment_id) for payment_id in chosen))
    read_ones = [(one, answer["history"]) for one, answer in zip(chosen, answers, strict=True) if answer is not None]
    wrong = [one for one, history in read_ones if not tells_one_end(history, book.known[one].sequence)]
    verdict.compared.append(f"{len(read_ones):,} of their histories: no gaps, one end each")
    verdict.note("with a history that has gaps or several ends", wrong)


def choose_histories(book: Book) -> list[str]:
    """At most HISTORIES_MAX payments that have ended; half of them those with the longest histories."""
    ended = [payment_id for payment_id, known in book.known.items() if known.status.is_terminal]
    longest = sorted(ended, key=lambda payment_id: -book.known[payment_id].sequence)[: HISTORIES_MAX // 2]
    others = [payment_id for payment_id in ended if payment_id not in set(longest)]
    room = HISTORIES_MAX - len(longest)
    return longest + others[:: max(1, -(-len(others) // room))]


def tells_one_end(history: Sequence[dict[str, Any]], sequence: int) -> bool:
    """The history is whole: numbered without a gap, every move begins where the last one ended, one end, at the end."""
    statuses = [PaymentStatus(move["new_status"]) for move in history]
    return (
        [move["sequence"] for move in history] == list(range(1, sequence + 1))
        and all(later["previous_status"] == earlier["new_status"] for earlier, later in pairwise(history))
        and [status.is_terminal for status in statuses] == [False] * (sequence - 1) + [True]
    )


async def judge_ledger(settings: Settings, verdict: Verdict) -> None:
    """Compare the payments' records with the gateway's own books, in the database of a stack of ours."""
    patient = settings.model_copy(update={"database_timeout_s": LEDGER_TIMEOUT_S})
    database = open_database(patient)
    try:
        async with database.read() as connection:
            charges = (
                await connection.execute(select(func.count()).where(gateway_ledger.c.kind.in_(MOVES_MONEY)))
            ).scalar_one()
            completed = (
                await connection.execute(select(func.count()).where(payments.c.status == PaymentStatus.COMPLETED))
            ).scalar_one()
        scan = Scan(database, Found(shown_max=EXAMPLES_MAX))
        await scan.of_payments(LEDGER)
    finally:
        await database.dispose()
    for kind, count in scan.found.totals.items():
        examples = tuple(ids["payment_id"] for ids in scan.found.shown[kind])
        verdict.broken.append(Broken(KINDS[kind].words, count, examples))
    verdict.compared.append(f"{charges:,} charges in the gateway's ledger with {completed:,} COMPLETED payments")
