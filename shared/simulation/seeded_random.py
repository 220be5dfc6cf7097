"""Repeatable random numbers: each is a keyed hash of what it is for, never the next number of a shared generator.

So a number is the same whatever the number of workers, their crashes or the order of their jobs. Nothing that must be
secret may be drawn here.
"""

import hashlib
import hmac
import string

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
UPPER_ALPHANUMERIC = string.digits + string.ascii_uppercase
# The bits that a float holds exactly: with more, rounding could reach 1.0.
FRACTION_BITS = 53
FRACTION_STEPS = 1 << FRACTION_BITS

type Part = str | int


def fraction(seed: str, *parts: Part) -> float:
    """Return a number in [0, 1), the same for the same seed and parts, evenly distributed over different parts.

    The parts say what the number is for: the payment, the purpose and, where it matters, the try.
    """
    return (int.from_bytes(_digest(seed, parts)[:8]) >> (64 - FRACTION_BITS)) / FRACTION_STEPS


def base62(seed: str, *parts: Part, length: int) -> str:
    """Return `length` (at most 40) characters of 0-9, A-Z and a-z; seed and parts as in `fraction`."""
    return _spell(_digest(seed, parts), BASE62, length)


def upper_alphanumeric(seed: str, *parts: Part, length: int) -> str:
    """Return `length` (at most 40) characters of 0-9 and A-Z; seed and parts as in `fraction`."""
    return _spell(_digest(seed, parts), UPPER_ALPHANUMERIC, length)


def _digest(seed: str, parts: tuple[Part, ...]) -> bytes:
    message = bytearray()
    for part in parts:
        raw = str(part).encode()
        # The length before each part keeps ("ab", "c") and ("a", "bc") apart.
        message += len(raw).to_bytes(4) + raw
    return hmac.digest(seed.encode(), message, hashlib.sha256)


def _spell(digest: bytes, alphabet: str, length: int) -> str:
    # A digest has 256 bits, of which 40 characters of base62 take 239.
    number = int.from_bytes(digest)
    letters = []
    for _ in range(length):
        number, index = divmod(number, len(alphabet))
        letters.append(alphabet[index])
    return "".join(letters)
