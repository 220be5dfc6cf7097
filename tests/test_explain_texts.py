"""The whole text of some explanations, as people read it."""

import pytest

from tests.support.endings import ENDINGS, clock, life, opened
from tests.support.explained import ADMIN, OWNER, Life, text_of

__all__ = ["clock", "life", "opened"]

TEXTS = {
    "declined by rate": """
In short
  The payment of 15.85 USD for the order o-1 is FAILED: nothing was charged.
  It failed with card_declined (the issuer declined the card without giving a reason).

What decided
  The success rate and a random number decided, because nothing else did.
  0.9690 was drawn, and below 0.95 is approved: so it was not approved.
  0.1914 was drawn for the failure code: from 0 to 0.6 is card_declined (the issuer declined the
    card without giving a reason).
  0.9276 was drawn for the gateway: below 0.875 it is the simulated gateway stripe_mock, else
    square_mock.

Charge
  At 2026-01-02T03:04:05.678Z: The payment was accepted.
  At 2026-01-02T03:04:05.698Z: A worker took it up for the first time. Call 1 to the gateway was
    made. 0.6564 was drawn for its delay, between 1,000 and 3,000 ms.
  At 2026-01-02T03:04:08.016Z: The gateway declined it.
  The gateway's own ledger says: 15.85 USD was declined at 2026-01-02T03:04:07.298Z.

Where the time went
  It took 2,338 ms.
  20 ms: queue and claim, which no record tells apart.
  2,313 ms: the delay of the gateway for call 1 of the charge.
  5 ms: all else until the answer was recorded.

Notifications
  Nobody was to be notified.

The same outcome again
  Paste this request. API is the address of the service up to /api/v1, and TOKEN is your token.
""",
    "lost answer, then charged": """
In short
  The payment of 15.85 USD for the order o-1 is COMPLETED: the money has moved, and nothing is
    refunded.

What decided
  The request itself decided: its member `simulation` said what each call to the gateway does.
  0.8381 was drawn for the gateway: below 0.875 it is the simulated gateway stripe_mock, else
    square_mock.

Charge
  At 2026-01-02T03:04:05.678Z: The payment was accepted.
  At 2026-01-02T03:04:05.698Z: A worker took it up for the first time. Call 1 to the gateway was
    made. The answer of the gateway was lost. 0.1969 was drawn for its delay, between 1,000 and
    3,000 ms.
  At 2026-01-02T03:04:08.118Z: A worker took it up to ask the gateway again. Call 2 to the gateway
    was made. 0.7735 was drawn for its delay, between 1,000 and 3,000 ms.
  At 2026-01-02T03:04:10.671Z: The gateway charged the payment.
  The request made call 1 end as timeout_not_charged (nothing happens, and the answer is lost).
  The request made call 2 end as approve (the gateway does what it is asked to).
  The gateway's own ledger says: 15.85 USD was held at 2026-01-02T03:04:08.506Z.
  The gateway's own ledger says: 15.85 USD moved at 2026-01-02T03:04:09.360Z.

Where the time went
  It took 4,993 ms.
  20 ms: queue and claim, which no record tells apart.
  1,394 ms: the delay of the gateway for call 1 of the charge.
  1,000 ms: the pause before the next call.
  26 ms: queue and claim, which no record tells apart.
  2,547 ms: the delay of the gateway for call 2 of the charge.
  6 ms: all else until the answer was recorded.

Notifications
  Nobody was to be notified.

The same outcome again
  Paste this request. API is the address of the service up to /api/v1, and TOKEN is your token.
  An order is paid once: take another `order_id` each time.
""",
    "authorized and captured": """
In short
  The payment of 15.85 USD for the order o-1 is COMPLETED: the money has moved, and nothing is
    refunded.

What decided
  The payment method decided: pm_test_visa is ready-made, and always ends like this.
  0.8381 was drawn for the gateway: below 0.875 it is the simulated gateway stripe_mock, else
    square_mock.

Authorization
  At 2026-01-02T03:04:05.678Z: The payment was accepted.
  At 2026-01-02T03:04:05.698Z: A worker took it up for the first time. Call 1 to the gateway was
    made. 0.1969 was drawn for its delay, between 1,000 and 3,000 ms.
  At 2026-01-02T03:04:07.098Z: The gateway held the money.
  The gateway's own ledger says: 15.85 USD was held at 2026-01-02T03:04:06.851Z.

Capture
  At 2026-01-02T04:04:07.098Z: A capture was asked for.
  At 2026-01-02T04:04:07.118Z: A worker took it up for the first time. Call 1 to the gateway was
    made. 0.9164 was drawn for its delay, between 1,000 and 3,000 ms.
  At 2026-01-02T04:04:09.956Z: The gateway moved the money that it held.
  The gateway's own ledger says: 10.00 USD moved at 2026-01-02T04:04:08.333Z.

Where the time went
  It took 3,604,278 ms (1.0 hours).
  20 ms: queue and claim, which no record tells apart.
  1,394 ms: the delay of the gateway for call 1 of the authorization.
  6 ms: all else until the answer was recorded.
  3,600,000 ms (1.0 hours): money that was held, waiting for a capture or a cancel.
  20 ms: queue and claim, which no record tells apart.
  2,833 ms: the delay of the gateway for call 1 of the capture.
  5 ms: all else until the answer was recorded.

Notifications
  Nobody was to be notified.

The same outcome again
  Paste these requests one after the other. API is the address of the service up to /api/v1, and
    TOKEN is your token. ID is the `id` in the answer to the first one.
  An order is paid once: take another `order_id` each time.
  Only services and admins capture and refund.
""",
    "delivery exhausted": """
In short
  The payment of 15.85 USD for the order o-1 is COMPLETED: the money has moved, and nothing is
    refunded.

What decided
  The success rate and a random number decided, because nothing else did.
  0.1070 was drawn, and below 0.95 is approved: so it was approved.
  0.8381 was drawn for the gateway: below 0.875 it is the simulated gateway stripe_mock, else
    square_mock.

Charge
  At 2026-01-02T03:04:05.678Z: The payment was accepted.
  At 2026-01-02T03:04:05.698Z: A worker took it up for the first time. Call 1 to the gateway was
    made. 0.1969 was drawn for its delay, between 1,000 and 3,000 ms.
  At 2026-01-02T03:04:07.098Z: The gateway charged the payment.
  The gateway's own ledger says: 15.85 USD was held at 2026-01-02T03:04:06.851Z.
  The gateway's own ledger says: 15.85 USD moved at 2026-01-02T03:04:06.966Z.

Where the time went
  It took 1,420 ms.
  20 ms: queue and claim, which no record tells apart.
  1,394 ms: the delay of the gateway for call 1 of the charge.
  6 ms: all else until the answer was recorded.

Notifications
  payment.completed (the money has moved) to the callback address of the payment at
    https://shop.example/hooks?token=1 was given up, because no attempt of its schedule succeeded or
    its receiver wanted no more. That took 120,060 ms (2.0 minutes).
  Attempt 1, at 2026-01-02T03:05:07.098Z, failed after 12 ms, with the status 500: the receiver
    answered 500.
  Attempt 2, at 2026-01-02T03:06:07.128Z, failed after 12 ms, with the status 500: the receiver
    answered 500.

The same outcome again
  Paste this request. API is the address of the service up to /api/v1, and TOKEN is your token.
  Only services and admins may name the user who pays, in `user_id`.
  An order is paid once: take another `order_id` each time.

For admins
  The random numbers are drawn for the key "1 key k-1".
""",
    "declined by the customer": """
In short
  The payment of 15.85 USD for the order o-1 is FAILED: nothing was charged.
  It failed with authentication_failed (the customer did not approve the payment; nothing was
    charged).

What decided
  The customer decided: at the page of the bank or of PayPal the payment was declined.
  0.8381 was drawn for the gateway: below 0.875 it is the simulated gateway stripe_mock, else
    square_mock.

Charge
  At 2026-01-02T03:04:05.678Z: The payment was accepted.
  At 2026-01-02T03:04:05.698Z: A worker took it up for the first time. Call 1 to the gateway was
    made. 0.1969 was drawn for its delay, between 1,000 and 3,000 ms.
  At 2026-01-02T03:04:07.098Z: The gateway wanted the approval of the customer first.
  At 2026-01-02T03:05:07.098Z: The customer declined the payment.
  The gateway's own ledger has nothing of it.

Where the time went
  It took 61,420 ms (1.0 minutes).
  20 ms: queue and claim, which no record tells apart.
  1,394 ms: the delay of the gateway for call 1 of the charge.
  6 ms: all else until the answer was recorded.
  60,000 ms (1.0 minutes): waiting for the customer.

Notifications
  Nobody was to be notified.

The same outcome again
  Paste these requests one after the other. API is the address of the service up to /api/v1, and
    TOKEN is your token. ID is the `id` in the answer to the first one.
""",
    "rule": """
In short
  The payment of 15.85 USD for the order rule-1 is FAILED: nothing was charged.
  It failed with insufficient_funds (the account does not have enough funds, or its daily limit is
    reached).

What decided
  A rule of an admin decided: "issuer-down" (00000000-0000-0000-0000-000000000007).
  0.8381 was drawn for the gateway: below 0.875 it is the simulated gateway stripe_mock, else
    square_mock.

Charge
  At 2026-01-02T03:04:05.678Z: The payment was accepted.
  At 2026-01-02T03:04:05.698Z: A worker took it up for the first time. Call 1 to the gateway was
    made.
  At 2026-01-02T03:04:05.713Z: The gateway declined it.
  The rule "issuer-down" (00000000-0000-0000-0000-000000000007) made call 1 end as
    insufficient_funds (the account does not have enough funds, or its daily limit is reached) and
    take 10 ms.
  The gateway's own ledger says: 15.85 USD was declined at 2026-01-02T03:04:05.706Z.

Where the time went
  It took 35 ms.
  20 ms: queue and claim, which no record tells apart.
  10 ms: the delay of the gateway for call 1 of the charge.
  5 ms: all else until the answer was recorded.

Notifications
  Nobody was to be notified.

The same outcome again
  Paste this request. API is the address of the service up to /api/v1, and TOKEN is your token.
""",
}


@pytest.mark.parametrize("kind", TEXTS)
async def test_the_text_is_as_people_read_it(life: Life, kind: str) -> None:
    happens, _, _ = ENDINGS[kind]
    reader = ADMIN if kind == "delivery exhausted" else OWNER
    assert text_of(await life.explained(await happens(life), reader)) == TEXTS[kind].strip()
