"""DATABASE_URL of a PostgreSQL, with the parameters of libpq that may be in it.

Every parameter either has an effect here, or has none because its value asks for what is so anyway, or is refused by
name. An error repeats no value, because that may be a secret.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from sqlalchemy.engine import URL

PORTS = range(1, 65_536)
DEFAULT_PORT = 5432
SCHEMES = ("postgres", "postgresql", "postgresql+asyncpg")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# asyncpg reads these from a URL, with the meaning that they have in libpq.
TLS_PARAMETERS = (
    "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation",
    "ssl_min_protocol_version", "ssl_max_protocol_version",
)  # fmt: skip
# asyncpg has these as arguments.
ARGUMENTS = ("user", "password", "passfile", "service", "servicefile", "target_session_attrs", "krbsrvname", "gsslib")
NUMBERS = (
    "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
)  # fmt: skip
SERVER_SETTINGS = ("application_name", "fallback_application_name", "options")
ADDRESSES = ("host", "port", "dbname")
FILES = ("sslcert", "sslkey", "sslrootcert", "sslcrl", "passfile", "servicefile")
# The authorities that the operating system trusts, instead of a file.
SYSTEM_AUTHORITIES = "system"
# Values that ask for what is so anyway. Another value of these parameters is refused.
WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "gssdelegation": ("0",),
    "client_encoding": ("utf8", "utf-8", "unicode", "auto"),
    "sslcompression": ("0",),
    "sslsni": ("1",),
    "sslcertmode": ("allow",),
    "load_balance_hosts": ("disable",),
    "replication": ("false", "off", "no", "0"),
    "min_protocol_version": ("3.0",),
    "max_protocol_version": ("3.0", "3.2", "latest"),
    # Said by some providers of poolers. A pooler is recognised without it.
    "pgbouncer": ("true", "false"),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "sslmode": SSL_MODES,
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "target_session_attrs": ("any", "primary", "standby", "prefer-standby", "read-write", "read-only"),
    "gsslib": ("gssapi", "sspi"),
    "keepalives": ("0", "1"),
    **WITHOUT_EFFECT,
}
KNOWN = frozenset((*TLS_PARAMETERS, *ARGUMENTS, *NUMBERS, *SERVER_SETTINGS, *ADDRESSES, *WITHOUT_EFFECT))
PARAMETER_NAME = re.compile(r"[a-z_]{1,40}")
NUMBER = re.compile(r"\d{1,9}")


@dataclass(frozen=True, slots=True)
class PostgresTarget:
    """Which server DATABASE_URL names, and how to connect to it.

    `hosts` is empty where a service file or the environment names the server; `ports` has the port of each host, or
    what the URL says about a server that it does not name. `numbers` are the parameters that are
    numbers: seconds, counts, and milliseconds for `tcp_user_timeout`.
    """

    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    database: str | None
    arguments: Mapping[str, str]
    tls: Mapping[str, str]
    server_settings: Mapping[str, str]
    numbers: Mapping[str, int]

    def __str__(self) -> str:
        """Return the name of the server for logs: no user, no password, no parameter."""
        addresses = [f"{host}:{port}" for host, port in zip(self.hosts, self.ports, strict=False)]
        return f"postgresql://{','.join(addresses)}/{self.database or ''}"


def postgres_url(url: URL) -> str:
    """Return the URL with the driver and the words that this service uses.

    Raises ValueError, which names the wrong parameter.
    """
    url = url.set(drivername="postgresql+asyncpg")
    if "ssl" in url.query:
        # SQLAlchemy and asyncpg call it ssl.
        url = url.difference_update_query(["ssl"]).update_query_dict({"sslmode": url.query["ssl"]})
    postgres_target(url)
    return url.render_as_string(hide_password=False)


def postgres_target(url: URL) -> PostgresTarget:
    """Return what a URL says. Raises ValueError, which names the wrong parameter."""
    given = {name: _text(name, value) for name, value in url.query.items()}
    _check(given)
    hosts, ports = _addresses(url, given)
    arguments = {name: given[name] for name in ARGUMENTS if name in given}
    for name, value in (("user", url.username), ("password", url.password)):
        if value is not None:
            arguments[name] = str(value)
    settings = {name: given[name] for name in SERVER_SETTINGS if name in given}
    fallback = settings.pop("fallback_application_name", "payments")
    return PostgresTarget(
        hosts=hosts,
        ports=ports,
        database=given.get("dbname") or url.database or None,
        arguments=arguments,
        tls={name: given[name] for name in TLS_PARAMETERS if name in given},
        server_settings={"application_name": fallback, **settings},
        numbers={name: int(given[name]) for name in NUMBERS if name in given},
    )


def spread_hosts(text: str) -> str:
    """Move several hosts from the authority, as libpq writes them, into parameters, as SQLAlchemy reads them."""
    parts = urlsplit(text)
    credentials, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        return text
    query = urlencode([*parse_qsl(parts.query), *(("host", host) for host in hosts.split(","))])
    return f"{parts.scheme}://{credentials}{at}{parts.path}?{query}"


def _text(name: str, value: str | Sequence[str]) -> str:
    """Return the one value of a parameter; several hosts or ports are joined by commas, as in libpq."""
    if isinstance(value, str):
        return value
    if name not in {"host", "port"}:
        raise ValueError(f"has the parameter {_shown(name)} more than once")
    return ",".join(value)


def _check(given: Mapping[str, str]) -> None:
    for name, value in given.items():
        if name not in KNOWN:
            raise ValueError(f"has the parameter {_shown(name)}, which this service does not support: remove it")
        allowed = CHOICES.get(name)
        if allowed is not None and value not in allowed:
            raise ValueError(f"has a value of the parameter {name} that is not supported; use {' or '.join(allowed)}")
        if name in NUMBERS and not NUMBER.fullmatch(value):
            raise ValueError(f"has a value of the parameter {name} that is not a whole number")
        if name in FILES and (name, value) != ("sslrootcert", SYSTEM_AUTHORITIES) and not _is_file(value):
            raise ValueError(f"names a file in the parameter {name} that does not exist or cannot be read")
    if given.get("sslrootcert") == SYSTEM_AUTHORITIES and given.get("sslmode", "verify-full") != "verify-full":
        raise ValueError("has the parameter sslrootcert with the value system, which needs sslmode=verify-full")


def _is_file(name: str) -> bool:
    try:
        with Path(name).open("rb"):
            return True
    except (OSError, ValueError):
        return False


def _shown(name: str) -> str:
    """Return a name that is no part of a password with an unescaped question mark."""
    return name if PARAMETER_NAME.fullmatch(name) else "with a strange name"


def _addresses(url: URL, given: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the hosts and their ports. `host` and `port` in the query win over those before the path."""
    texts = given["host"].split(",") if given.get("host") else [url.host] if url.host else []
    wanted = [int(port) if NUMBER.fullmatch(port) else 0 for port in given.get("port", "").split(",") if port]
    if not wanted and url.port is not None:
        wanted = [url.port]
    found = [_host_and_port(text) for text in texts]
    if len(wanted) not in {0, 1, len(found)}:
        raise ValueError("has another number of ports than of hosts")
    ports = [port or of_all or DEFAULT_PORT for (_, port), of_all in zip(found, _for_each(wanted, found), strict=True)]
    if not all(port in PORTS for port in (*ports, *wanted)):
        raise ValueError("has a port that is not between 1 and 65535")
    return tuple(host for host, _ in found), tuple(ports or wanted)


def _for_each(ports: list[int], hosts: Sequence[Any]) -> Iterable[int | None]:
    if not ports:
        return [None] * len(hosts)
    return ports * len(hosts) if len(ports) == 1 else ports


def _host_and_port(text: str) -> tuple[str, int | None]:
    """Split `host:port`. A path of a socket and an IPv6 address without brackets have no port."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.startswith("/") or text.count(":") > 1:
        return text, None
    else:
        host, _, port = text.partition(":")
    if not port:
        return host, None
    return host, int(port) if NUMBER.fullmatch(port) and int(port) in PORTS else -1
