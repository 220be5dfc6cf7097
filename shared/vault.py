"""Keys derived from DATA_KEY and what is done with them: fingerprints, encryption of secrets, signed cursors.

No key, and nothing that was hashed or encrypted, is ever logged here.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.config import Settings
from shared.ids import new_secret_bytes

WEBHOOK_SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix of Standard Webhooks


@dataclass(frozen=True, slots=True)
class Vault:
    """Does what needs a key, so that nobody else holds one."""

    fingerprint_key: bytes = field(repr=False)
    cursor_key: bytes = field(repr=False)
    callback_key: bytes = field(repr=False)
    cipher: Fernet = field(repr=False)

    def fingerprint(self, *parts: str | bytes) -> str:
        """A keyed hash (hex, 64 characters): equal parts are recognised again, but cannot be searched for."""
        return _mac(self.fingerprint_key, *parts).hex()

    def seal_cursor(self, payload: bytes) -> str:
        """`payload` as opaque text that only we can have made."""
        return base64.urlsafe_b64encode(_mac(self.cursor_key, payload)[:16] + payload).decode().rstrip("=")

    def open_cursor(self, text: str) -> bytes | None:
        """The payload of a cursor of ours, or None."""
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError:
            return None
        mac, payload = raw[:16], raw[16:]
        return payload if hmac.compare_digest(mac, _mac(self.cursor_key, payload)[:16]) else None

    def encrypt(self, secret: str) -> str:
        """`secret` as it may lie in a table."""
        return self.cipher.encrypt(secret.encode()).decode()

    def decrypt(self, encrypted: str) -> str:
        """What `encrypt` was given. Raises cryptography's InvalidToken if DATA_KEY has changed since."""
        return self.cipher.decrypt(encrypted.encode()).decode()

    def callback_secret(self, owner: str) -> str:
        """The secret that signs the `callback_url` deliveries of `owner` (`user:1`, `service:orders`)."""
        return as_webhook_secret(_mac(self.callback_key, owner))


def open_vault(settings: Settings) -> Vault:
    """The vault of these settings; WEBHOOK_SIGNING_SECRET, where set, takes DATA_KEY's place for callbacks."""
    root = settings.data_key_text.encode()
    callback_root = (
        settings.webhook_signing_secret.get_secret_value().encode() if settings.webhook_signing_secret else root
    )
    return Vault(
        fingerprint_key=_derive(root, "fingerprints"),
        cursor_key=_derive(root, "cursors"),
        callback_key=_derive(callback_root, "callbacks"),
        cipher=Fernet(base64.urlsafe_b64encode(_derive(root, "secrets at rest"))),
    )


def new_webhook_secret() -> str:
    """A secret for an endpoint: `whsec_` and 32 random bytes in base64 (Standard Webhooks)."""
    return as_webhook_secret(new_secret_bytes())


def as_webhook_secret(key: bytes) -> str:
    """`key` in the form that receivers' libraries take."""
    return WEBHOOK_SECRET_PREFIX + base64.b64encode(key).decode()


def _derive(root: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"payments/{purpose}".encode()).derive(root)


def _mac(key: bytes, *parts: str | bytes) -> bytes:
    mac = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        mac.update(len(raw).to_bytes(8))  # lengths keep ("ab", "c") and ("a", "bc") apart
        mac.update(raw)
    return mac.digest()
