"""REDIS_URL: what it may say, and what that means. Nothing that it says is passed on unread.

An error names the option that is wrong, and repeats no value, because that may be a secret.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import SplitResult, unquote, urlsplit

PORT, SENTINEL_PORT = 6379, 26379
PORTS = range(1, 65_536)
SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
DATABASE_MAX = 9_999
_NAME = re.compile(r"[A-Za-z_]{1,40}")
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class CertificateCheck(StrEnum):
    """Whether the server's certificate is checked; the words of `ssl_cert_reqs`."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


_CREDENTIALS = ("username", "password")
_SENTINEL_CREDENTIALS = ("sentinel_username", "sentinel_password")
_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
OPTIONS = ("db", *_CREDENTIALS, *_SENTINEL_CREDENTIALS, *_TLS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user and its password; None where the server wants none."""

    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How a connection is encrypted, and how the server proves who it is. Certificates are paths of files."""

    check: CertificateCheck
    checks_hostname: bool
    ca_certs: str | None
    certfile: str | None
    keyfile: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """Where Redis is: a socket at `path`, one of `hosts`, or the master that the Sentinels at `hosts` call `master`."""

    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    master: str | None = None
    database: int = 0
    credentials: Credentials = field(default_factory=Credentials)
    sentinel_credentials: Credentials = field(default_factory=Credentials)
    tls: Tls | None = None


def parse_redis_url(text: str) -> RedisAddress:
    """Return the address in a URL. Raises ValueError, whose text continues a sentence that begins with REDIS_URL."""
    parts = _split(text)
    is_sentinel = parts.scheme.endswith("+sentinel")
    options = _options(parts, is_sentinel=is_sentinel)
    userinfo, _, hosts = parts.netloc.rpartition("@")
    credentials = _credentials(userinfo, options)
    path = unquote(parts.path)
    if parts.scheme == "unix":
        if not path or hosts:
            raise ValueError("names no socket; write unix:///path/of/the/socket")
        return RedisAddress(path=path, database=_database(options.get("db", "0")), credentials=credentials)
    master, database = _master_and_database(path, is_sentinel=is_sentinel)
    return RedisAddress(
        hosts=_hosts(hosts, is_sentinel=is_sentinel),
        master=master,
        database=_database(options.get("db", database)),
        credentials=credentials,
        sentinel_credentials=Credentials(
            username=options.get("sentinel_username"), password=options.get("sentinel_password")
        ),
        tls=_tls(options) if parts.scheme.startswith("rediss") else None,
    )


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("is not a URL; percent-encode the special characters of its password") from None
    if parts.scheme not in SCHEMES or "://" not in text:
        raise ValueError(f"must start with {', '.join(f'{scheme}://' for scheme in SCHEMES[:-1])} or {SCHEMES[-1]}://")
    if "#" in text:
        raise ValueError("has a # in it; write %23 instead")
    if "@" in parts.query:
        raise ValueError("has a @ after a ?; percent-encode the special characters of its password")
    return parts


def _options(parts: SplitResult, *, is_sentinel: bool) -> dict[str, str]:
    """Return the options of the query. Refuses those that are unknown, repeated, or of no use with this scheme."""
    options: dict[str, str] = {}
    for pair in parts.query.split("&") if parts.query else ():
        name, _, value = pair.partition("=")
        name = unquote(name)
        # What does not look like a name may be part of a password.
        shown = f"the option {name}" if _NAME.fullmatch(name) else "an option"
        if name not in OPTIONS:
            raise ValueError(f"has {shown}, which is not supported; use {', '.join(OPTIONS)}")
        if name in options:
            raise ValueError(f"has {shown} twice")
        if name in _TLS and not parts.scheme.startswith("rediss"):
            raise ValueError(f"has {shown}, which needs rediss:// or rediss+sentinel://")
        if name in _SENTINEL_CREDENTIALS and not is_sentinel:
            raise ValueError(f"has {shown}, which needs redis+sentinel:// or rediss+sentinel://")
        options[name] = unquote(value)
    return options


def _credentials(userinfo: str, options: dict[str, str]) -> Credentials:
    username, _, password = userinfo.partition(":")
    given = Credentials(username=unquote(username) or None, password=unquote(password) or None)
    for name in _CREDENTIALS:
        if getattr(given, name) and name in options:
            raise ValueError(f"has the {name} twice")
    return Credentials(
        username=given.username or options.get("username") or None,
        password=given.password or options.get("password") or None,
    )


def _hosts(text: str, *, is_sentinel: bool) -> tuple[tuple[str, int], ...]:
    default_port = SENTINEL_PORT if is_sentinel else PORT
    hosts = tuple(_host(part, default_port) for part in text.split(","))
    if len(hosts) > 1 and not is_sentinel:
        raise ValueError("names several hosts, which only redis+sentinel:// and rediss+sentinel:// can do")
    return hosts


def _host(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        port = default_port if parts.port is None else parts.port
    except ValueError:
        port = 0
        parts = SplitResult("", "", "", "", "")
    if port not in PORTS:
        raise ValueError("is not a URL with a port between 1 and 65535")
    return unquote(parts.hostname or "localhost"), port


def _master_and_database(path: str, *, is_sentinel: bool) -> tuple[str | None, str]:
    """Return the name of the master, if Sentinels are asked for one, and the number of the database."""
    segments = path.strip("/").split("/") if path.strip("/") else []
    if not is_sentinel:
        if len(segments) > 1:
            raise ValueError("has a path that is not the number of a database")
        return None, segments[0] if segments else "0"
    if len(segments) not in {1, 2}:
        raise ValueError("must name the master, such as redis+sentinel://host:26379,host2:26379/mymaster/0")
    return segments[0], segments[1] if len(segments) > 1 else "0"


def _database(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > DATABASE_MAX:
        raise ValueError("has a path or an option db that is not the number of a database")
    return int(text)


def _tls(options: dict[str, str]) -> Tls:
    word = options.get("ssl_cert_reqs", CertificateCheck.REQUIRED).lower().removeprefix("cert_")
    if word not in set(CertificateCheck):
        raise ValueError(f"has an option ssl_cert_reqs that is none of {', '.join(CertificateCheck)}")
    check = CertificateCheck(word)
    checks_hostname = _TRUTHS.get(options.get("ssl_check_hostname", str(check is not CertificateCheck.NONE)).lower())
    if checks_hostname is None:
        raise ValueError("has an option ssl_check_hostname that is neither true nor false")
    if checks_hostname and check is CertificateCheck.NONE:
        raise ValueError("has ssl_check_hostname=true, which needs ssl_cert_reqs=required")
    certfile, keyfile = options.get("ssl_certfile"), options.get("ssl_keyfile")
    if bool(certfile) != bool(keyfile):
        raise ValueError("needs both ssl_certfile and ssl_keyfile, or neither")
    return Tls(
        check=check,
        checks_hostname=checks_hostname,
        ca_certs=options.get("ssl_ca_certs"),
        certfile=certfile,
        keyfile=keyfile,
    )
