"""Learns how a load's payments ended, a hundred per request, so that asking costs a hundredth of the load.

It reads lists backwards from a moment by which payments have ended, down to where it stopped the last time.
"""

import asyncio
from datetime import UTC, datetime

from cli.load_book import Book
from cli.load_client import PAGE, Answer, Api, Figures, Unusable, unix_s

SETTLED_AFTER_S = 4.0  # the gateway takes up to 3 s; what is still open then is read again in the end
CLOCK_SLACK_S = 60.0  # below the first payment known: one whose answer was lost may be a little older
ONE_BY_ONE_MAX = 100  # open payments: fewer than a page is worth
ONE_BY_ONE_AT_ONCE = 20


class Follower:
    """Fills a book. `token` sees every payment of the load."""

    def __init__(self, api: Api, token: str, book: Book) -> None:
        self._api = api
        self._token = token
        self._book = book
        self._filters = {"limit": str(PAGE)}
        self._read_to: float | None = None  # everything created before has been read once

    def only(self, user_id: str) -> None:
        """Pass over the payments of others, where an admin would see them all."""
        self._filters["user_id"] = user_id

    async def catch_up(self, figures: Figures | None) -> None:
        """Read what should have ended by now. Raises NoAnswer or Unusable; the next time reads the same again."""
        book = self._book
        since = self._read_to if self._read_to is not None else self._beginning()
        if not book.known or since > book.newest_at:
            return
        pending_s = figures.oldest_pending_s if figures is not None else 0.0
        now = figures.computed_at if figures is not None else book.newest_at
        upto = now - SETTLED_AFTER_S - pending_s
        if upto > since:
            await self._read(since, upto)
            self._read_to = upto

    async def read_all(self) -> None:
        """Read everything that is not known to have ended, up to now. Raises NoAnswer or Unusable."""
        book = self._book
        if not book.known and not book.unanswered:
            return
        unread = self._read_to
        if unread is None or book.unanswered:  # what was not answered may be anywhere
            unread = self._beginning()
        oldest = book.oldest_open_at
        await self._read(unread if oldest is None else min(oldest, unread), None)
        self._read_to = book.newest_at

    async def read_open(self) -> None:
        """Look at the open payments: one by one if they are few. Raises NoAnswer or Unusable."""
        if len(self._book.open) > ONE_BY_ONE_MAX:
            await self.read_all()
            return
        at_once = asyncio.Semaphore(ONE_BY_ONE_AT_ONCE)

        async def look(payment_id: str) -> None:
            async with at_once:
                self._note(payment_id, await self._api.ask("GET", f"/api/v1/payments/{payment_id}", self._token))

        answers = (look(payment_id) for payment_id in list(self._book.open))
        for failure in await asyncio.gather(*answers, return_exceptions=True):
            if isinstance(failure, BaseException):
                raise failure

    def _note(self, payment_id: str, answer: Answer) -> None:
        if answer.is_success:
            self._book.see(answer.content)
        elif answer.status == 404:  # noqa: PLR2004 - HTTP's own number
            self._book.miss(payment_id)
        else:
            raise Unusable(f"GET /payments/{payment_id} answered {answer.words}")

    def _beginning(self) -> float:
        between = self._book.created_between()
        return between[0] - CLOCK_SLACK_S if between is not None else 0.0

    async def _read(self, since: float, upto: float | None) -> None:
        """Note every payment created in [since, upto).

        `created_after` is left out on purpose: it makes the database look for the end of the window in all that is
        older, while a client sees for itself that it has come to it.
        """
        query = self._filters | ({} if upto is None else {"created_before": _moment(upto)})
        while True:
            page = await self._api.get("/payments", self._token, query)
            for document in page["payments"]:
                self._book.see(document)
            cursor = page["next_cursor"]
            if cursor is None or unix_s(page["payments"][-1]["created_at"]) < since:
                return
            query = {"cursor": cursor, "limit": str(PAGE)}


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat()
