"""What a page says was done, as the address says it to which a form has led.

The word in the address has a MAC of the visitor's session and of the path, so an address that somebody else has made up
says nothing, and neither does one of another page or session.
"""

from hmac import compare_digest, digest

# Hexadecimal digits of the MAC: 128 bits.
MAC_DIGITS = 32


def mark_done(secret: str, path: str, word: str) -> str:
    """Return the value in the address of the page at `path` that says that `word` was done; `secret` is the session's.

    A word has letters, digits and hyphens.
    """
    return f"{word}.{_mac(secret, path, word)}"


def read_done(secret: str, path: str, value: str) -> str:
    """Return the word of a value that `mark_done` made of the same secret and path; an empty text for any other."""
    word, _, mac = value.rpartition(".")
    return word if compare_digest(mac.encode(), _mac(secret, path, word).encode()) else ""


def _mac(secret: str, path: str, word: str) -> str:
    return digest(secret.encode(), f"done\0{path}\0{word}".encode(), "sha256").hex()[:MAC_DIGITS]
