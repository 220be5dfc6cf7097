"""The hosts of URLs that clients give: what can be a name or an address, and what can never be one.

It resolves no name.
"""

import re
import socket
from ipaddress import IPv6Address, ip_address
from unicodedata import category

from shared.config.values import Address
from shared.errors import UrlRefused
from shared.webhooks.address_policy import literal_address

NAME_CHARS_MAX = 253
WRITE_PUNYCODE = "has a host with characters that no name has; write the name as xn--... (punycode)"
# A label begins and ends with a letter, a digit or an underscore (which hosts of some internal networks have).
LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
LETTER_OR_DIGIT = re.compile(r"[a-z0-9]")
# Programs read a host whose last label looks so as an IPv4 address (URL Standard, 3.5).
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
PUNYCODE_PREFIX = "xn--"
# Unicode categories of what no label can have: control characters, surrogates, private use, unassigned.
NO_CHARACTERS = frozenset({"Cc", "Cs", "Co", "Cn"})
# An IPv6 address without a zone, which has a meaning on one machine only.
IPV6_LITERAL = re.compile(r"[0-9a-f.]*:[0-9a-f:.]*")


def parse_host(host: str, *, in_brackets: bool) -> Address | None:
    """Return the address that the host of a URL spells; None if it is a name. Raises UrlRefused if it can be neither.

    `host` is in lower case and without the brackets of an IPv6 address.
    """
    if in_brackets:
        return _ipv6(host)
    if not host.isascii() or "%" in host:
        raise UrlRefused(WRITE_PUNYCODE)
    name = host.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        if name != host:
            raise UrlRefused("has a host that never resolves; write localhost without the dot at its end")
        return literal_address(name)
    labels = name.split(".")
    if NUMBER.fullmatch(labels[-1]):
        return _ipv4(host)
    if len(name) > NAME_CHARS_MAX or not all(map(_is_label, labels)):
        raise UrlRefused("needs a host name or an address")
    return None


def _ipv6(host: str) -> Address:
    if IPV6_LITERAL.fullmatch(host):
        try:
            return IPv6Address(host)
        except ValueError:
            pass
    raise UrlRefused("has brackets without an IPv6 address")


def _ipv4(host: str) -> Address:
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        socket.inet_aton(host.removesuffix("."))
    except OSError:
        raise UrlRefused("has a host that ends in a number and is no IPv4 address") from None
    raise UrlRefused("has an address in an unusual form; write four decimal numbers")


def _is_label(label: str) -> bool:
    if not LABEL.fullmatch(label) or not LETTER_OR_DIGIT.search(label):
        return False
    return not label.startswith(PUNYCODE_PREFIX) or _is_punycode(label.removeprefix(PUNYCODE_PREFIX))


def _is_punycode(text: str) -> bool:
    """Return whether `text` is the punycode (RFC 3492) of a label that needs it."""
    try:
        label = text.encode().decode("punycode")
        is_needed = not label.isascii() and not any(category(each) in NO_CHARACTERS for each in label)
        return is_needed and label.encode("punycode").decode() == text
    except (UnicodeError, ValueError, OverflowError):
        return False
