"""Approval links: who is shown them, and what their token says.

A token names the payment, the step that waits for its customer and the end of that step, under a MAC. So the link is
the same at every reading, and a forged one costs no query.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Any, Self
from urllib.parse import urlencode, urlsplit, urlunsplit
from uuid import UUID

from fastapi import Request

from api.auth.principal import Principal, Role
from api.paths import APPROVE, PAYMENTS, PLATFORM_PREFIX, PREFIX
from api.state import Api
from shared.database.clock import rfc3339
from shared.keyring import Keyring
from shared.lifecycle import PaymentStatus
from shared.payments.payment import Payment

# How long a link still shows the result after its end.
SHOWN_AFTER_END = timedelta(hours=24)
# The payment's id, the number of the step, and its end in milliseconds since 1970.
_TOKEN = Struct(">16sIQ")
_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Approval:
    """What a token stands for: one step of one payment, which the customer may approve until `expires_at`.

    `step` is the payment's sequence while it waits.
    """

    payment_id: UUID
    step: int
    expires_at: datetime

    @classmethod
    def of(cls, payment: Payment) -> Self | None:
        """Return what the payment waits for; None if it does not wait for its customer."""
        if payment.status is not PaymentStatus.REQUIRES_ACTION or payment.action_expires_at is None:
            return None
        return cls(payment.id, payment.sequence, payment.action_expires_at)

    @classmethod
    def open(cls, keyring: Keyring, token: str) -> Self | None:
        """Return what a token of ours stands for; None for any other text."""
        payload = keyring.open_approval_token(token)
        if payload is None or len(payload) != _TOKEN.size:
            return None
        payment_id, step, expires_at = _TOKEN.unpack(payload)
        return cls(UUID(bytes=payment_id), step, _EPOCH + expires_at * _MILLISECOND)

    def token(self, keyring: Keyring) -> str:
        """Return the token, which is the same every time."""
        expires_at = (self.expires_at - _EPOCH) // _MILLISECOND
        return keyring.seal_approval_token(_TOKEN.pack(self.payment_id.bytes, self.step, expires_at))

    def is_of(self, payment: Payment) -> bool:
        """Return whether the payment waits for this approval, or did."""
        waiting = Approval.of(payment)
        if waiting is not None:
            return waiting == self
        return payment.action_expires_at == self.expires_at and self.step < payment.sequence


def payment_json(request: Request, principal: Principal, payment: Payment) -> dict[str, Any]:
    """Return the payment as this client sees it: with the link, if the client may send the customer there."""
    return payment.to_json(_next_action(request, principal, payment))


def _next_action(request: Request, principal: Principal, payment: Payment) -> dict[str, Any] | None:
    approval = Approval.of(payment)
    if approval is None or not _may_approve(principal, payment):
        return None
    api: Api = request.app.state.api
    base = api.runtime.settings.link_base
    if base is None:
        return None
    # With the prefix that the client came by: behind it, no other path may be reachable.
    prefix = "" if request.scope["path"].startswith(f"{PREFIX}/") else PLATFORM_PREFIX + PAYMENTS
    return {
        "type": "redirect",
        "url": f"{base}{prefix}{APPROVE}/{approval.token(api.runtime.keyring)}",
        "expires_at": rfc3339(approval.expires_at),
    }


def _may_approve(principal: Principal, payment: Payment) -> bool:
    is_payer = principal.role is Role.USER and principal.user_id == payment.user_id
    return is_payer or principal.actor == payment.created_by


def return_link(payment: Payment) -> str | None:
    """Return where the customer goes back to the shop: the client's URL, which keeps its own query and fragment."""
    if payment.return_url is None:
        return None
    parts = urlsplit(payment.return_url)
    added = urlencode({"payment_id": str(payment.id), "status": payment.status.value})
    return urlunsplit(parts._replace(path=parts.path or "/", query=f"{parts.query}&{added}" if parts.query else added))
