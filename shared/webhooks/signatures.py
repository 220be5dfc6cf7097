"""Signatures of Standard Webhooks: of what the service sends, and of what gateways send to it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
No secret, and no signature that was wrong, is ever logged here.
"""

import base64
import hmac
import re
from dataclasses import dataclass
from uuid import UUID

from shared.keyring import WEBHOOK_SECRET_PREFIX

WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
# The version of signatures with a shared secret. A header may have others beside it.
VERSION = "v1"
# Seconds between the moment of signing and now, both ways: older messages may be repeats by somebody who read them.
TOLERANCE_S = 300
# A full stop would end the id inside the text that is signed.
_ID = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,128}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class SignatureHeaders:
    """The three headers of a message as they arrived; each is empty if it was missing or came twice."""

    webhook_id: str
    timestamp: str
    signatures: str

    def are_current(self, now_s: float) -> bool:
        """Return whether id and timestamp are well-formed, and the timestamp is at most 5 minutes from `now_s`."""
        if not _ID.fullmatch(self.webhook_id) or not _TIMESTAMP.fullmatch(self.timestamp):
            return False
        return abs(now_s - int(self.timestamp)) <= TOLERANCE_S


def sign(secret: str, webhook_id: UUID, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three headers of Standard Webhooks for exactly the bytes of `body`.

    `timestamp` is the moment of this attempt in Unix seconds; it is part of what is signed.
    """
    return {
        WEBHOOK_ID: str(webhook_id),
        WEBHOOK_TIMESTAMP: str(timestamp),
        WEBHOOK_SIGNATURE: _signature(secret, str(webhook_id), str(timestamp), body),
    }


def verify(secret: str, headers: SignatureHeaders, body: bytes, *, now_s: float) -> bool:
    """Return whether one of the signatures is that of `secret` for these headers and exactly the bytes of `body`.

    Signatures of other versions are skipped. The time that it takes does not depend on how much of one is right.
    `now_s` is real time in Unix seconds.
    """
    if not headers.are_current(now_s):
        return False
    expected = _signature(secret, headers.webhook_id, headers.timestamp, body).encode()
    given = (part.encode() for part in headers.signatures.split(" ") if part.startswith(f"{VERSION},"))
    # Every one is compared, so that the time does not say which one was right either.
    return sum([hmac.compare_digest(expected, part) for part in given]) > 0


def _signature(secret: str, webhook_id: str, timestamp: str, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(WEBHOOK_SECRET_PREFIX))
    digest = hmac.digest(key, f"{webhook_id}.{timestamp}.".encode() + body, "sha256")
    return f"{VERSION},{base64.b64encode(digest).decode()}"
