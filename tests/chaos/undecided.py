"""Payments that are not decided at once: which there are, and what their customers answer."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from random import Random
from typing import Any

CHALLENGED, LATE, SLOW_REFUND = "pm_test_3ds_required", "pm_test_paypal_pending", "pm_test_refund_slow"
LATE_DECLINED = "pm_test_paypal_pending_declined"
# The parts of the payments that are made with them; the others are made with a card of the user.
SHARES = {CHALLENGED: 0.15, LATE: 0.05, LATE_DECLINED: 0.03, SLOW_REFUND: 0.05}
RETURN_URL = "https://shop.example/paid"
RESULTS = {"approve": "action_approved", "decline": "action_declined"}

# Asks one of the APIs until there is an answer: method, path and body. Answers status and document.
type Answered = Callable[[str, str, dict[str, Any] | None], Awaitable[tuple[int, Any]]]


class Reply(StrEnum):
    """What a customer does at the page of the bank."""

    APPROVE = "approve"
    DECLINE = "decline"
    WALK_AWAY = "walk away"
    APPROVE_TWICE = "approve twice at once"
    APPROVE_AND_CANCEL = "approve, and cancel at once"


# Each with its weight.
REPLIES = {
    Reply.APPROVE: 5, Reply.DECLINE: 1, Reply.WALK_AWAY: 1, Reply.APPROVE_TWICE: 1, Reply.APPROVE_AND_CANCEL: 1,
}  # fmt: skip


def drawn_method(random: Random, own: str) -> str:
    """Return the payment method of an intent: mostly the user's own."""
    drawn, upper = random.random(), 0.0
    for name, share in SHARES.items():
        upper += share
        if drawn < upper:
            return name
    return own


def drawn_reply(random: Random) -> Reply:
    """Return what the customer will do."""
    return random.choices(list(REPLIES), list(REPLIES.values()))[0]


@dataclass(slots=True)
class CustomerJournal:
    """The answers of the customer that were accepted, and whether a cancel was."""

    results: list[str] = field(default_factory=list)
    is_cancelled: bool = False


async def reply_as_customer(reply: Reply, payment_id: str, answered: Answered, journal: CustomerJournal) -> None:
    """Do at the page what the customer has in mind."""

    async def say(result: str) -> None:
        status, _ = await answered("POST", f"/payments/{payment_id}/action", {"result": result})
        if status in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
            journal.results.append(result)

    async def cancel() -> None:
        status, _ = await answered("POST", f"/payments/{payment_id}/cancel", None)
        journal.is_cancelled |= status == HTTPStatus.OK

    match reply:
        case Reply.APPROVE:
            await say("approve")
        case Reply.DECLINE:
            await say("decline")
        case Reply.APPROVE_TWICE:
            await asyncio.gather(say("approve"), say("approve"))
        case Reply.APPROVE_AND_CANCEL:
            await asyncio.gather(say("approve"), cancel())
        case Reply.WALK_AWAY:
            pass


def wrong_replies(journal: CustomerJournal, *, is_challenged: bool, is_charged: bool, reasons: set[str]) -> list[str]:
    """Return what is wrong with a payment, after what its customer answered."""
    wrong = []
    if is_challenged and is_charged and "action_approved" not in reasons:
        wrong.append("it was charged without its customer's approval")
    if len(journal.results) + journal.is_cancelled > 1:
        wrong.append(f"more than one answer of its customer was accepted: {journal}")
    wrong += [f"{result} was accepted and is lost" for result in journal.results if RESULTS[result] not in reasons]
    if journal.is_cancelled and "cancelled" not in reasons:
        wrong.append("its cancel was accepted and is lost")
    return wrong
