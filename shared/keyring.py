"""The keys that are derived from DATA_KEY, and their uses: keyed hashes, encryption of secrets, signed texts.

No key, and nothing that was hashed or encrypted, is ever logged here.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.config.settings import Settings
from shared.ids import new_secret_bytes

# Of a MAC in a sealed text.
MAC_BYTES = 16
WEBHOOK_SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix of Standard Webhooks


@dataclass(frozen=True, slots=True)
class Keyring:
    """The operations that need a key, so that no other part of the process holds one."""

    fingerprint_key: bytes = field(repr=False)
    cursor_key: bytes = field(repr=False)
    callback_key: bytes = field(repr=False)
    api_key_key: bytes = field(repr=False)
    approval_link_key: bytes = field(repr=False)
    approval_form_key: bytes = field(repr=False)
    notification_key: bytes = field(repr=False)
    session_key: bytes = field(repr=False)
    cipher: Fernet = field(repr=False)

    def fingerprint(self, *parts: str | bytes) -> str:
        """Return a keyed hash of `parts` (HMAC-SHA256, 64 hex digits), which is equal for equal parts.

        Without the key, no card number can be found from its fingerprint by trying all numbers.
        """
        return _mac(self.fingerprint_key, *parts).hex()

    def api_key_hash(self, api_key: str) -> str:
        """Return the keyed hash (64 hex digits) by which an API key is found. It changes with DATA_KEY."""
        return _mac(self.api_key_key, api_key).hex()

    def seal_cursor(self, payload: bytes) -> str:
        """Return `payload` as opaque text with a MAC: `open_cursor` accepts only text that was made here."""
        return _seal(self.cursor_key, payload)

    def open_cursor(self, text: str) -> bytes | None:
        """Return the payload of a cursor that `seal_cursor` made; None for any other text."""
        return _open(self.cursor_key, text)

    def seal_approval_token(self, payload: bytes) -> str:
        """Return the token of an approval link: whoever has it may answer for the customer, until it expires."""
        return _seal(self.approval_link_key, payload)

    def open_approval_token(self, text: str) -> bytes | None:
        """Return the payload of a token that `seal_approval_token` made; None for any other text."""
        return _open(self.approval_link_key, text)

    def approval_form_value(self, token: str, sequence: int) -> str:
        """Return what the form of an approval page must send back. It changes with the payment's sequence."""
        return _text(_mac(self.approval_form_key, token, str(sequence)))

    def seal_session(self, payload: bytes) -> str:
        """Return `payload` with a MAC, as Redis keeps it: `open_session` accepts only text that was made here."""
        return _seal(self.session_key, payload)

    def open_session(self, text: str) -> bytes | None:
        """Return the payload of a text that `seal_session` made; None for any other text."""
        return _open(self.session_key, text)

    def encrypt(self, secret: str) -> str:
        """Return `secret` in a form that may be stored in a table."""
        return self.cipher.encrypt(secret.encode()).decode()

    def decrypt(self, encrypted: str) -> str:
        """Return what `encrypt` was given. Raises cryptography's InvalidToken if DATA_KEY has changed since."""
        return self.cipher.decrypt(encrypted.encode()).decode()

    def can_decrypt(self, token: str) -> bool:
        """Return whether `token` was encrypted with the key that is in use now."""
        try:
            self.cipher.decrypt(token)
        except InvalidToken:
            return False
        return True

    def callback_secret(self, owner: str) -> str:
        """Return the secret that signs the deliveries to the callback URLs of `owner` (`user:1`, `service:orders`)."""
        return as_webhook_secret(_mac(self.callback_key, owner))

    def notification_secret(self, gateway: str) -> str:
        """Return the secret with which this gateway signs its notifications to the service."""
        return as_webhook_secret(_mac(self.notification_key, gateway))


def open_keyring(settings: Settings) -> Keyring:
    """Return the keyring of these settings. WEBHOOK_SIGNING_SECRET, if set, replaces DATA_KEY for callbacks."""
    root = settings.data_key_text.encode()
    callback_root = (
        settings.webhook_signing_secret.get_secret_value().encode() if settings.webhook_signing_secret else root
    )
    return Keyring(
        fingerprint_key=_derive(root, "fingerprints"),
        cursor_key=_derive(root, "cursors"),
        callback_key=_derive(callback_root, "callbacks"),
        api_key_key=_derive(root, "api keys"),
        approval_link_key=_derive(root, "approval links"),
        approval_form_key=_derive(root, "approval forms"),
        notification_key=_derive(root, "gateway notifications"),
        session_key=_derive(root, "dashboard sessions"),
        cipher=Fernet(base64.urlsafe_b64encode(_derive(root, "secrets at rest"))),
    )


def new_webhook_secret() -> str:
    """Return a new secret for an endpoint: `whsec_` and 32 random bytes in base64 (Standard Webhooks)."""
    return as_webhook_secret(new_secret_bytes())


def as_webhook_secret(key: bytes) -> str:
    """Return `key` in the form that the libraries of Standard Webhooks take."""
    return WEBHOOK_SECRET_PREFIX + base64.b64encode(key).decode()


def _derive(root: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"payments/{purpose}".encode()).derive(root)


def _mac(key: bytes, *parts: str | bytes) -> bytes:
    mac = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        # The length before each part keeps ("ab", "c") and ("a", "bc") apart.
        mac.update(len(raw).to_bytes(8))
        mac.update(raw)
    return mac.digest()


def _seal(key: bytes, payload: bytes) -> str:
    return _text(_mac(key, payload)[:MAC_BYTES] + payload)


def _open(key: bytes, text: str) -> bytes | None:
    try:
        payload = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))[MAC_BYTES:]
    except ValueError:
        return None
    # The decoder skips foreign characters and spare bits, so the whole text is compared: each payload has one text.
    return payload if hmac.compare_digest(text.encode(), _seal(key, payload).encode()) else None


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
