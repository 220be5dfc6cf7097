"""Reads how the payments of a load ended, a hundred per request, which costs a hundredth of the load.

It reads lists from the newest payment that should have ended back to where the last read began.
"""

import asyncio
from datetime import UTC, datetime

from cli.load.client import PAGE, Api, ApiAnswer, Figures, Unusable, unix_s
from cli.load.payment_tally import PaymentTally

# Seconds after which a payment should have ended: the gateway takes up to 3 s. A payment that is still open is read
# again at the end.
SETTLED_AFTER_S = 4.0
# Seconds before the first known payment at which a read begins: a payment whose answer was lost may be older.
CLOCK_SLACK_S = 60.0
# So many open payments are read one by one; for more of them a list is cheaper.
ONE_BY_ONE_MAX = 100
ONE_BY_ONE_AT_ONCE = 20


class Follower:
    """Adds the ends of payments to a tally. `token` must see every payment of the load."""

    def __init__(self, api: Api, token: str, payment_tally: PaymentTally) -> None:
        self._api = api
        self._token = token
        self._payment_tally = payment_tally
        self._filters = {"limit": str(PAGE)}
        # The Unix time up to which each created payment has been read once.
        self._read_to: float | None = None

    def filter_by_user(self, user_id: str) -> None:
        """Read only the payments of this user. An admin's token would list those of all users."""
        self._filters["user_id"] = user_id

    async def catch_up(self, figures: Figures | None) -> None:
        """Read the payments that should have ended by now.

        Raises NoAnswer or Unusable; the next call then reads the same payments again.
        """
        payment_tally = self._payment_tally
        since = self._read_to if self._read_to is not None else self._beginning()
        if not payment_tally.known or since > payment_tally.newest_at:
            return
        pending_s = figures.oldest_pending_s if figures is not None else 0.0
        now = figures.computed_at if figures is not None else payment_tally.newest_at
        upto = now - SETTLED_AFTER_S - pending_s
        if upto > since:
            await self._read(since, upto)
            self._read_to = upto

    async def read_all(self) -> None:
        """Read all payments that are not known to have ended. Raises NoAnswer or Unusable."""
        payment_tally = self._payment_tally
        if not payment_tally.known and not payment_tally.unanswered:
            return
        unread = self._read_to
        # A payment whose answer was lost may have been created at any time.
        if unread is None or payment_tally.unanswered:
            unread = self._beginning()
        oldest = payment_tally.oldest_open_at
        await self._read(unread if oldest is None else min(oldest, unread), None)
        self._read_to = payment_tally.newest_at

    async def read_open(self) -> None:
        """Read the open payments, one by one if they are few. Raises NoAnswer or Unusable."""
        if len(self._payment_tally.open) > ONE_BY_ONE_MAX:
            await self.read_all()
            return
        at_once = asyncio.Semaphore(ONE_BY_ONE_AT_ONCE)

        async def read_one(payment_id: str) -> None:
            async with at_once:
                self._note(payment_id, await self._api.request("GET", f"/api/v1/payments/{payment_id}", self._token))

        answers = (read_one(payment_id) for payment_id in list(self._payment_tally.open))
        for failure in await asyncio.gather(*answers, return_exceptions=True):
            if isinstance(failure, BaseException):
                raise failure

    def _note(self, payment_id: str, answer: ApiAnswer) -> None:
        if answer.is_success:
            self._payment_tally.see(answer.content)
        elif answer.status == 404:  # noqa: PLR2004 - HTTP's own number
            self._payment_tally.miss(payment_id)
        else:
            raise Unusable(f"GET /payments/{payment_id} answered {answer.status_and_code}.")

    def _beginning(self) -> float:
        between = self._payment_tally.created_between()
        return between[0] - CLOCK_SLACK_S if between is not None else 0.0

    async def _read(self, since: float, upto: float | None) -> None:
        """Note every payment created in [since, upto).

        The query has no `created_after` on purpose: it would make the database search all older payments for the end of
        the window. Here the read stops at the first page that reaches beyond the window.
        """
        query = self._filters | ({} if upto is None else {"created_before": _moment(upto)})
        while True:
            page = await self._api.get("/payments", self._token, query)
            for document in page["payments"]:
                self._payment_tally.see(document)
            cursor = page["next_cursor"]
            if cursor is None or unix_s(page["payments"][-1]["created_at"]) < since:
                return
            query = {"cursor": cursor, "limit": str(PAGE)}


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat()
