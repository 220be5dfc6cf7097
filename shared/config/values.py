"""The types of settings: each turns the text of an environment variable into a value, or refuses it.

An error repeats nothing of the refused text but the scheme of a database URL, because the text may be a secret.
"""

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Annotated, Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from limits import parse_many
from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from shared.config.database_url import PORTS, SCHEMES, postgres_url, spread_hosts
from shared.config.redis_url import parse_redis_url

DRIVERS = {"sqlite": "sqlite+aiosqlite", "sqlite+aiosqlite": "sqlite+aiosqlite"}
ONE_DAY_S = 86_400
# The word for an empty list.
NONE = "none"
RATE_LIMIT_MAX = 1_000_000_000
# The words with which pydantic begins: "Value error, must be ...", "String should have ...".
PYDANTIC_SUBJECT = re.compile(r"^(?:Value error, |[A-Z][a-z]+ (?=should ))")

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network


class Service(NamedTuple):
    """Where a service listens: a name or an address in lower case, and a port."""

    host: str
    port: int


def _with_driver(text: str) -> str:
    """Return the same URL with the driver that we use, so that plain `sqlite:///` and `postgresql://` URLs work."""
    is_postgres = text.partition("://")[0] in SCHEMES
    try:
        url = make_url(spread_hosts(text) if is_postgres else text)
    except (ArgumentError, ValueError) as error:
        raise ValueError("is not a database URL such as postgresql://user:password@host:5432/database") from error
    if is_postgres:
        return postgres_url(url)
    if url.drivername not in DRIVERS:
        raise ValueError(f"has the scheme {url.drivername!r}; use sqlite:///file or postgresql://...")
    url = url.set(drivername=DRIVERS[url.drivername])
    if not url.database or ":memory:" in url.database or "mode" in url.query:
        raise ValueError("needs a file: an SQLite database in memory would lose accepted payments")
    return url.render_as_string(hide_password=False)


def _redis_url(text: str) -> str:
    parse_redis_url(text)
    return text


def _http_url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    if not split_url(text).hostname:
        raise ValueError("names no host")
    return text.rstrip("/")


def split_url(url: str) -> SplitResult:
    """Split a URL whose port is valid. Raises ValueError, whose text does not repeat the URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        port = 0
        parts = SplitResult("", "", "", "", "")
    if port is not None and port not in PORTS:
        raise ValueError("is not a URL with a port between 1 and 65535")
    return parts


def _rate(text: str) -> str:
    found = []
    # The words of the library's own error would repeat the value.
    with suppress(ValueError):
        found = parse_many(text)
    if len(found) != 1 or not 1 <= found[0].amount <= RATE_LIMIT_MAX or found[0].get_expiry() > ONE_DAY_S:
        raise ValueError("is not a number of requests in a time of up to a day, such as 600/minute")
    return text


def _name_server(text: str) -> str:
    parts = split_url(f"//{text}")
    try:
        ip_address(parts.hostname or "")
    except ValueError:
        raise ValueError("is not a list of addresses such as 10.0.0.2 or [fd00::2]:5353") from None
    return text


def _empty_is_unset(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _comma_separated(value: Any) -> Any:
    """Split a list; `none` is the empty one, because an empty variable counts as unset."""
    if isinstance(value, str) and value.strip().lower() == NONE:
        return []
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


type DatabaseUrl = Annotated[str, AfterValidator(_with_driver)]
type RedisUrl = Annotated[
    str | None, BeforeValidator(_empty_is_unset), AfterValidator(lambda url: url and _redis_url(url))
]
type HttpUrl = Annotated[
    str | None, BeforeValidator(_empty_is_unset), AfterValidator(lambda url: url and _http_url(url))
]
type NameServer = Annotated[str, AfterValidator(_name_server)]
type Rate = Annotated[str | None, BeforeValidator(_empty_is_unset), AfterValidator(lambda rate: rate and _rate(rate))]
# These annotate a field where it is declared: pydantic-settings does not look into an alias for NoDecode.
COMMA_SEPARATED = (NoDecode, BeforeValidator(_comma_separated))
LOWER_CASE = BeforeValidator(_lower)
UPPER_CASE = BeforeValidator(_upper)
EMPTY_IS_UNSET = BeforeValidator(_empty_is_unset)


def reason_of(message: str) -> str:
    """Return a message of pydantic without its introduction: it continues a sentence that begins with the field."""
    return PYDANTIC_SUBJECT.sub("", message)


def is_loopback(host: str) -> bool:
    """Return whether `host` is an address of this machine that no other machine can connect to."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
