"""Chance that repeats itself: every draw is a keyed hash of what is drawn for whom, never a shared generator.

So a draw is the same whatever the number of workers, their crashes or the order of their jobs. None of it is secret.
"""

import hashlib
import hmac
import string

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
UPPER_ALPHANUMERIC = string.digits + string.ascii_uppercase
FRACTION_BITS = 53  # what a float holds exactly, so that no rounding reaches 1.0
FRACTION_STEPS = 1 << FRACTION_BITS

type Part = str | int


def fraction(seed: str, *parts: Part) -> float:
    """A number in [0, 1), evenly spread over different parts; parts are whose, what for and which try."""
    return (int.from_bytes(_digest(seed, parts)[:8]) >> (64 - FRACTION_BITS)) / FRACTION_STEPS


def base62(seed: str, *parts: Part, length: int) -> str:
    """`length` (at most 40) characters of 0-9, A-Z and a-z."""
    return _spell(_digest(seed, parts), BASE62, length)


def upper_alphanumeric(seed: str, *parts: Part, length: int) -> str:
    """`length` (at most 40) characters of 0-9 and A-Z."""
    return _spell(_digest(seed, parts), UPPER_ALPHANUMERIC, length)


def _digest(seed: str, parts: tuple[Part, ...]) -> bytes:
    message = bytearray()
    for part in parts:
        raw = str(part).encode()
        message += len(raw).to_bytes(4) + raw  # lengths keep ("ab", "c") and ("a", "bc") apart
    return hmac.digest(seed.encode(), message, hashlib.sha256)


def _spell(digest: bytes, alphabet: str, length: int) -> str:
    number = int.from_bytes(digest)  # 256 bits: 40 characters of base62 take 239 of them
    letters = []
    for _ in range(length):
        number, index = divmod(number, len(alphabet))
        letters.append(alphabet[index])
    return "".join(letters)
