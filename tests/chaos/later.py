"""What clients do to payments that they have: capture, cancel or leave an authorization, and refund a charge."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from random import Random
from time import monotonic
from typing import Any

from shared.ids import new_id
from tests.chaos.steering import drawn_later
from tests.chaos.undecided import CustomerJournal, Reply, reply_as_customer

# The part of the payments that are authorized first.
MANUAL = 0.4
PAUSE_S = (0.2, 0.8)
# For a payment to be authorized or charged, while much is broken.
REACHED_WITHIN_S = 40.0
WAITING = frozenset({"PENDING", "PROCESSING"})

# Asks one of the APIs as the shop's service: method, path, idempotency key and body. Answers status and document.
type Ask = Callable[[str, str, str | None, dict[str, Any] | None], Awaitable[tuple[int | None, Any]]]


class Aim(StrEnum):
    """What a client has in mind for a payment."""

    LEAVE = "leave"
    CAPTURE = "capture"
    CAPTURE_PART = "capture a part"
    CAPTURE_AND_REFUND = "capture a part and refund it"
    CANCEL = "cancel the authorization"
    CAPTURE_OR_CANCEL = "capture and cancel at once"
    REFUND = "refund all"
    REFUND_PARTS = "refund two parts at once"
    REFUND_NOT = "refund a part and cancel that"


# Each with its weight. An authorization that is left expires.
OF_MANUAL = {
    Aim.LEAVE: 1, Aim.CAPTURE: 2, Aim.CAPTURE_PART: 2, Aim.CAPTURE_AND_REFUND: 2, Aim.CANCEL: 2,
    Aim.CAPTURE_OR_CANCEL: 1,
}  # fmt: skip
OF_AUTOMATIC = {Aim.LEAVE: 4, Aim.REFUND: 1, Aim.REFUND_PARTS: 1, Aim.REFUND_NOT: 1}


def drawn_aim(random: Random, *, is_manual: bool) -> Aim:
    """Return what the client has in mind."""
    weights = OF_MANUAL if is_manual else OF_AUTOMATIC
    return random.choices(list(weights), list(weights.values()))[0]


@dataclass(slots=True)
class LaterJournal:
    """What was answered to the requests that came after the payment."""

    # The amounts of captures that were accepted.
    captures: list[int] = field(default_factory=list)
    is_cancelled: bool = False
    # Refunds that were sent, each under a key of its own, and the amounts of those that were accepted by their id.
    refunds_sent: int = 0
    refunds: dict[str, int] = field(default_factory=dict)
    refunds_cancelled: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Later:
    """Does to one payment what its client has in mind, and keeps the journal."""

    payment_id: str
    amount: int
    aim: Aim
    ask: Ask
    random: Random
    journal: LaterJournal
    findings: list[str]
    # What the customer does first; None = nobody is asked.
    reply: Reply | None
    customer: CustomerJournal

    async def follow(self) -> None:
        """Do it, once the customer has answered and the payment can be captured or refunded."""
        if self.reply is not None and await self._reached("REQUIRES_ACTION"):
            await reply_as_customer(self.reply, self.payment_id, self._answered, self.customer)
        match self.aim:
            case Aim.LEAVE:
                return
            case Aim.CAPTURE | Aim.CAPTURE_PART | Aim.CAPTURE_AND_REFUND | Aim.CANCEL | Aim.CAPTURE_OR_CANCEL:
                if await self._reached("AUTHORIZED"):
                    await self._end_authorization()
            case Aim.REFUND | Aim.REFUND_PARTS | Aim.REFUND_NOT:
                if await self._reached("COMPLETED"):
                    await self._refund_charge()

    async def _end_authorization(self) -> None:
        part = self.random.randrange(1, self.amount)
        match self.aim:
            case Aim.CAPTURE:
                await self._capture(None)
            case Aim.CANCEL:
                await self._cancel()
            case Aim.CAPTURE_OR_CANCEL:
                await asyncio.gather(self._capture(part), self._cancel())
            case _:
                await self._capture(part)
        if self.aim is Aim.CAPTURE_AND_REFUND and await self._reached("COMPLETED"):
            await self._refund(self.random.choice([None, 1, part]))

    async def _refund_charge(self) -> None:
        part = self.random.randrange(1, self.amount)
        match self.aim:
            case Aim.REFUND:
                await self._refund(None)
            case Aim.REFUND_PARTS:
                # Together they are the whole, or a little more: then one of them is refused.
                rest = self.amount - part + self.random.choice([0, 0, 1])
                await asyncio.gather(self._refund(part), self._refund(rest))
            case _:
                refund_id = await self._refund(part)
                if refund_id is not None:
                    status, said = await self._answered("POST", f"/refunds/{refund_id}/cancel", None)
                    if status == HTTPStatus.OK and said["status"] == "CANCELLED":
                        self.journal.refunds_cancelled.add(refund_id)

    async def _capture(self, amount: int | None) -> None:
        body: dict[str, Any] = drawn_later(self.random) | ({} if amount is None else {"amount": amount})
        status, _ = await self._answered("POST", f"/payments/{self.payment_id}/capture", body)
        if status in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
            self.journal.captures.append(amount or self.amount)

    async def _cancel(self) -> None:
        status, _ = await self._answered("POST", f"/payments/{self.payment_id}/cancel", None)
        self.journal.is_cancelled |= status in {HTTPStatus.OK, HTTPStatus.ACCEPTED}

    async def _refund(self, amount: int | None) -> str | None:
        """Return the id of the refund, or None if it was refused."""
        self.journal.refunds_sent += 1
        body: dict[str, Any] = drawn_later(self.random) | {"reason": "other"}
        if amount is not None:
            body["amount"] = amount
        status, said = await self._answered("POST", f"/payments/{self.payment_id}/refunds", body)
        if status not in {HTTPStatus.ACCEPTED, HTTPStatus.CREATED, HTTPStatus.OK}:
            return None
        self.journal.refunds[said["id"]] = said["amount"]
        return str(said["id"])

    async def _answered(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        """Ask with one key until there is an answer; a refusal is one, any other error a finding."""
        key = str(new_id())
        while True:
            status, said = await self.ask(method, path, key, body)
            if status is not None and status != HTTPStatus.SERVICE_UNAVAILABLE:
                if status >= HTTPStatus.BAD_REQUEST and status != HTTPStatus.CONFLICT:
                    self.findings.append(f"{method} {path}: {status} {said}")
                return status, said
            await asyncio.sleep(self.random.uniform(*PAUSE_S))

    async def _reached(self, wanted: str) -> bool:
        """Wait until the payment has this status; return whether it has, and not another one instead."""
        give_up_at = monotonic() + REACHED_WITHIN_S
        while monotonic() < give_up_at:
            _, said = await self.ask("GET", f"/payments/{self.payment_id}", None, None)
            status = said.get("status") if said else None
            if status == wanted:
                return True
            if isinstance(status, str) and status not in WAITING:
                return False
            await asyncio.sleep(self.random.uniform(*PAUSE_S))
        return False
