"""The policy for URLs that clients give: the form that they have, as far as their text shows where they lead.

It resolves no name and opens no connection: the worker's SSRF guard judges each address before it connects.
"""

import re
from urllib.parse import SplitResult, urlsplit

from shared.database.tables import URL_CHARS_MAX
from shared.errors import UrlRefused
from shared.webhooks.address_policy import AddressPolicy
from shared.webhooks.host_names import WRITE_PUNYCODE, parse_host

DEFAULT_PORTS = {"http": 80, "https": 443}
# Blanks and control characters: they would be removed silently, or end the request line.
INVISIBLE = re.compile(r"[\0-\x20\x7f]")
VISIBLE_ASCII = re.compile(r"[!-~]+")
AUTHORITY = re.compile(r"[a-z]+://([^/?#\\]*)", re.IGNORECASE)
# Visible characters that no request target may have (RFC 3986, 2), and how they are escaped.
NOT_IN_TARGET = {ord(character): f"%{ord(character):02X}" for character in '"<>\\^`{|}'}


def check_callback_url(url: str, policy: AddressPolicy, *, allows_http: bool = True) -> None:
    """Check the URL of a callback or an endpoint, as far as its text tells. Raises UrlRefused.

    Where a host name leads is checked at every connection.
    """
    parts = _parse(url)
    if not allows_http and parts.scheme != "https":
        raise UrlRefused("must start with https://")
    _refuse_credentials(parts)
    if "#" in url:
        raise UrlRefused("must not contain a fragment")
    _check_host(parts, policy)


def check_return_url(url: str) -> None:
    """Check the URL to which a customer's browser returns; it may have a fragment. Raises UrlRefused.

    The service itself never opens it, so it may lead anywhere.
    """
    parts = _parse(url)
    _refuse_credentials(parts)
    _port(parts)
    parse_host(parts.hostname or "", in_brackets="[" in parts.netloc)


def origin(url: str) -> str:
    """Return `scheme://host:port` of a URL, where a connection for it goes. Return any other text unchanged."""
    try:
        parts = _split(url)
        return f"{parts.scheme}://{parts.hostname}:{_port(parts)}"
    except UrlRefused:
        return url


def split_target(url: str) -> tuple[str, str, str]:
    """Return the scheme, the host with its port, and the request target of a URL, each as it is written.

    Only what no target may have is escaped: URLs were registered that have such characters.
    """
    scheme, _, rest = url.partition("://")
    end = next((place for place, character in enumerate(rest) if character in "/?"), len(rest))
    target = rest[end:].translate(NOT_IN_TARGET)
    return scheme.lower(), rest[:end], target if target.startswith("/") else f"/{target}"


def _parse(url: str) -> SplitResult:
    """Return the parts of a URL whose characters are all allowed."""
    if len(url) > URL_CHARS_MAX:
        raise UrlRefused(f"is longer than {URL_CHARS_MAX} characters")
    if INVISIBLE.search(url):
        raise UrlRefused("has blanks or control characters; escape them (RFC 3986)")
    if (authority := AUTHORITY.match(url)) and not authority[1].isascii():
        raise UrlRefused(WRITE_PUNYCODE)
    if not VISIBLE_ASCII.fullmatch(url):
        raise UrlRefused("has characters other than visible ASCII; escape them (RFC 3986)")
    if found := {character for character in url if ord(character) in NOT_IN_TARGET}:
        raise UrlRefused(f"has characters that must be escaped (RFC 3986): {' '.join(sorted(found))}")
    return _split(url)


def _refuse_credentials(parts: SplitResult) -> None:
    if "@" in parts.netloc:
        raise UrlRefused("must not contain credentials")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise UrlRefused("is not a URL") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise UrlRefused("must start with http:// or https://")
    return parts


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        raise UrlRefused("has a port that is not between 1 and 65535") from None
    if port == 0:
        raise UrlRefused("has a port that is not between 1 and 65535")
    return port or DEFAULT_PORTS[parts.scheme]


def _check_host(parts: SplitResult, policy: AddressPolicy) -> None:
    host, port = parts.hostname or "", _port(parts)
    address = parse_host(host, in_brackets="[" in parts.netloc)
    is_open = not policy.names_service(host, port) if address is None else policy.permits(address, port)
    if not is_open:
        raise UrlRefused("leads to an address that deliveries may not reach")
