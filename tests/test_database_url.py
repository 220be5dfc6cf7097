"""DATABASE_URL of a PostgreSQL: each parameter of libpq has its effect, or is refused by name, without its value."""

import re
from pathlib import Path

import pytest

from shared.config.database_url import ARGUMENTS, KNOWN, NUMBERS, SERVER_SETTINGS, TLS_PARAMETERS, WITHOUT_EFFECT
from shared.config.settings import Settings, load_settings
from shared.errors import ConfigurationError
from tests.support.roles import PAGE

# The parameters of libpq 18 (the manual of PostgreSQL, 32.1.2).
LIBPQ = frozenset({
    "host", "hostaddr", "port", "dbname", "user", "password", "passfile", "require_auth", "channel_binding",
    "connect_timeout", "client_encoding", "options", "application_name", "fallback_application_name", "keepalives",
    "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "replication", "gssencmode",
    "sslmode", "requiressl", "sslnegotiation", "sslcompression", "sslcert", "sslkey", "sslkeylogfile", "sslpassword",
    "sslcertmode", "sslrootcert", "sslcrl", "sslcrldir", "sslsni", "requirepeer", "ssl_min_protocol_version",
    "ssl_max_protocol_version", "min_protocol_version", "max_protocol_version", "krbsrvname", "gsslib",
    "gssdelegation", "scram_client_key", "scram_server_key", "service", "servicefile", "target_session_attrs",
    "load_balance_hosts", "oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope",
})  # fmt: skip
SECRET = "hunter2hunter2"


def settings_of(suffix: str, authority: str = "u:p@h:1") -> Settings:
    return load_settings(database_url=f"postgresql://{authority}/d{suffix}")


def refusal_of(suffix: str, authority: str = "u:p@h:1") -> str:
    with pytest.raises(ConfigurationError) as caught:
        settings_of(suffix, authority)
    reason = str(caught.value)
    assert "\n" not in reason
    assert reason.startswith(("DATABASE_URL: has ", "DATABASE_URL: names "))
    return reason


@pytest.mark.parametrize("name", sorted(LIBPQ))
def test_a_parameter_of_libpq_is_known_or_refused_by_name(name: str) -> None:
    reason = refusal_of(f"?{name}={SECRET}%00") if name not in FREE else ""
    assert name in KNOWN or f"the parameter {name}," in reason
    assert SECRET not in reason


FREE = {*SERVER_SETTINGS, "user", "password", "host", "dbname", "service", "krbsrvname", "sslpassword"}


def test_no_parameter_is_known_that_libpq_does_not_have() -> None:
    assert {"pgbouncer"} == KNOWN - LIBPQ
    ours = {*ARGUMENTS, *NUMBERS, *SERVER_SETTINGS, *TLS_PARAMETERS, *WITHOUT_EFFECT}
    assert ours | {"host", "port", "dbname"} == KNOWN


def test_every_known_parameter_is_documented() -> None:
    page = PAGE.read_text()
    assert {name for name in KNOWN if not re.search(rf"`{name}[=`]", page)} == set()


def test_providers_urls_are_taken(tmp_path: Path) -> None:
    authority = tmp_path / "ca.crt"
    authority.write_text("")
    target = settings_of(
        f"?sslmode=verify-full&sslrootcert={authority}&application_name=shop&connect_timeout=3&options=-c%20geqo%3Doff"
        "&keepalives=1&keepalives_idle=9&target_session_attrs=read-write&gssencmode=disable&channel_binding=prefer"
        "&client_encoding=utf8&pgbouncer=true"
    ).postgres
    assert target is not None
    assert (target.hosts, target.ports, target.database) == (("h",), (1,), "d")
    assert target.tls == {"sslmode": "verify-full", "sslrootcert": str(authority)}
    assert target.server_settings == {"application_name": "shop", "options": "-c geqo=off"}
    assert target.numbers == {"connect_timeout": 3, "keepalives": 1, "keepalives_idle": 9}
    assert target.arguments == {"user": "u", "password": "p", "target_session_attrs": "read-write"}


@pytest.mark.parametrize(
    ("authority", "suffix", "hosts", "ports"),
    [
        ("a", "", ("a",), (5432,)),
        ("[::1]:5", "", ("::1",), (5,)),
        ("a:1,b:2", "", ("a", "b"), (1, 2)),
        ("u:p@a,b", "", ("a", "b"), (5432, 5432)),
        ("", "?host=a:1&host=b:2", ("a", "b"), (1, 2)),
        ("", "?host=a,b&port=1,2", ("a", "b"), (1, 2)),
        ("", "?host=a,b&port=7", ("a", "b"), (7, 7)),
        ("", "?host=%2Fvar%2Frun", ("/var/run",), (5432,)),
        ("a:9", "?host=b&port=1", ("b",), (1,)),
        ("", "?service=s", (), ()),
        ("", "?port=6", (), (6,)),
    ],
)
def test_servers_are_named_in_every_form(
    authority: str, suffix: str, hosts: tuple[str, ...], ports: tuple[int, ...]
) -> None:
    settings = settings_of(suffix, authority)
    assert settings.postgres is not None
    assert (settings.postgres.hosts, settings.postgres.ports) == (hosts, ports)
    assert settings.own_ports >= set(ports or (5432,))
    # A process that is given the settings of another reads the same.
    assert load_settings(database_url=settings.database_url).postgres == settings.postgres


@pytest.mark.parametrize(
    ("suffix", "named"),
    [
        ("?sslmode=bogus", "sslmode"),
        ("?channel_binding=require", "channel_binding"),
        ("?gssencmode=require", "gssencmode"),
        ("?connect_timeout=soon", "connect_timeout"),
        ("?keepalives=2", "keepalives"),
        ("?target_session_attrs=some", "target_session_attrs"),
        ("?sslrootcert=/nowhere/ca.crt", "sslrootcert"),
        ("?sslrootcert=system&sslmode=require", "sslrootcert"),
        ("?sslmode=require&sslmode=disable", "sslmode"),
        ("?schema=x", "schema"),
        ("?connection_limit=5", "connection_limit"),
        ("?prepared_statement_cache_size=0", "prepared_statement_cache_size"),
        ("?port=0", "port"),
        ("?port=70000", "port"),
        ("?host=a,b,c&port=1,2", "ports"),
        ("?host=a:x", "port"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(suffix: str, named: str) -> None:
    assert named in refusal_of(suffix, "u:p@")


def test_a_password_is_in_no_message_wherever_it_stands() -> None:
    for url in (
        f"postgresql://u:{SECRET}@h/d",
        f"postgresql:///d?host=h&user=u&password={SECRET}",
        f"postgresql:///d?host=h&user=u&sslpassword={SECRET}",
        f"postgresql://u@a:1,b:2/d?password={SECRET}",
    ):
        settings = load_settings(database_url=url)
        assert SECRET not in settings.database_name
        assert "/d" in settings.database_name
    for suffix in (f"?password={SECRET}&bogus=1", f"?{SECRET}@h/d=1", f"?sslmode={SECRET}"):
        assert SECRET not in refusal_of(suffix)
