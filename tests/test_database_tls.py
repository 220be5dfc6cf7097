"""A PostgreSQL behind TLS with a certificate of a private authority, with every word of libpq for that."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import text

from shared.config.settings import Settings, load_settings
from shared.database.engine import open_database
from shared.database.migrations import head, migrate
from shared.errors import DatabaseRefused, DatabaseUnavailable
from tests.support.certificates import Authority, Issued
from tests.support.commands import words_of_a_failed_start
from tests.support.processes import PaymentsProcess
from tests.support.servers import PostgresServer, free_port
from tests.support.tls_front import TlsFront

KEY_PASSWORD = "of the key"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue("server", address="127.0.0.1")


@pytest.fixture
def postgres_tls(postgres: PostgresServer) -> PostgresServer:
    postgres.drop_database("tls")
    postgres.create_database("tls")
    return postgres


@pytest.fixture
async def front(postgres_tls: PostgresServer, authority: Authority, issued: Issued) -> AsyncIterator[TlsFront]:
    async with TlsFront(postgres_tls.port, issued, authority, wants_client=False).listening() as front:
        yield front


@pytest.fixture
async def strict_front(postgres_tls: PostgresServer, authority: Authority, issued: Issued) -> AsyncIterator[TlsFront]:
    """One that wants a certificate of the client."""
    async with TlsFront(postgres_tls.port, issued, authority, wants_client=True).listening() as front:
        yield front


def settings_of(port: int, *, host: str = "127.0.0.1", **query: object) -> Settings:
    return load_settings(database_url=f"postgresql://postgres:hush@{host}:{port}/tls?{urlencode(query)}")


async def asked(settings: Settings, statement: str = "SELECT 1") -> Any:
    database = open_database(settings)
    try:
        async with database.read() as connection:
            return (await connection.execute(text(statement))).scalar_one()
    finally:
        await database.dispose()


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
async def test_a_private_authority_is_trusted_as_the_mode_says(
    front: TlsFront, authority: Authority, mode: str
) -> None:
    assert await migrate(settings_of(front.port, sslmode=mode, sslrootcert=authority.certificate)) == head()
    # The first connection finds out whether a pooler is in between.
    assert front.connections == [("TLSv1.3", "")] * 2


async def test_a_client_proves_who_it_is_with_a_certificate(strict_front: TlsFront, authority: Authority) -> None:
    client = authority.issue("payments_app", password=KEY_PASSWORD)
    server: dict[str, Any] = {"sslmode": "verify-full", "sslrootcert": authority.certificate}
    own: dict[str, Any] = {"sslcert": client.certificate, "sslkey": client.key, "sslpassword": KEY_PASSWORD}
    assert await asked(settings_of(strict_front.port, **server, **own)) == 1
    assert strict_front.connections == [("TLSv1.3", "payments_app")] * 2
    with pytest.raises(DatabaseUnavailable):
        await asked(settings_of(strict_front.port, **server))


async def test_tls_from_the_first_byte_and_its_version(front: TlsFront, authority: Authority) -> None:
    words: dict[str, Any] = {"sslmode": "verify-full", "sslrootcert": authority.certificate}
    assert await asked(settings_of(front.direct_port, sslnegotiation="direct", **words)) == 1
    assert await asked(settings_of(front.port, ssl_max_protocol_version="TLSv1.2", **words)) == 1
    assert [version for version, _ in front.connections] == ["TLSv1.3"] * 2 + ["TLSv1.2"] * 2
    with pytest.raises(DatabaseUnavailable):
        await asked(settings_of(front.port, sslmode="disable"))


async def test_a_server_that_is_not_trusted_is_refused(front: TlsFront, authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    for words in (
        {"sslmode": "verify-ca", "sslrootcert": other.certificate},
        {"sslmode": "verify-full", "sslrootcert": "system"},
    ):
        with pytest.raises(DatabaseRefused, match="certificate verify failed"):
            await asked(settings_of(front.port, **words))
    # The certificate is for the address, and not for this name of it.
    assert await asked(
        settings_of(front.port, host="localhost", sslmode="verify-ca", sslrootcert=authority.certificate)
    )
    with pytest.raises(DatabaseRefused, match="not valid for"):
        await asked(settings_of(front.port, host="localhost", sslmode="verify-full", sslrootcert=authority.certificate))


@pytest.mark.parametrize("command", ["api", "migrate"])
async def test_a_start_says_in_a_line_that_the_server_is_not_trusted(
    front: TlsFront, tmp_path: Path, command: str
) -> None:
    other = Authority(tmp_path / "other")
    url = settings_of(front.port, sslmode="verify-full", sslrootcert=other.certificate).database_url
    settings = load_settings(database_url=url, redis_url="redis://127.0.0.1:1")
    process = PaymentsProcess(command, tmp_path / command, settings, PORT=str(free_port()))
    words = await words_of_a_failed_start(process, code=2)
    assert f"DATABASE_URL: postgresql://127.0.0.1:{front.port}/tls cannot be used" in words
    assert "certificate verify failed" in words
    assert "hush" not in process.errors + process.output


async def test_the_words_of_a_connection_arrive(front: TlsFront, authority: Authority) -> None:
    settings = settings_of(
        front.port,
        sslmode="verify-full",
        sslrootcert=authority.certificate,
        application_name="shop",
        options="-c geqo=off -c search_path=elsewhere",
        keepalives_idle=7,
        tcp_user_timeout=4321,
        target_session_attrs="read-write",
        connect_timeout=3,
    )
    await migrate(settings)
    database = open_database(settings)
    query = "SELECT current_setting('application_name'), current_setting('geqo'), current_schema()"
    async with database.read() as connection:
        assert tuple((await connection.execute(text(query))).one()) == ("shop", "off", "payments")
        raw = await connection.get_raw_connection()
        assert raw.driver_connection is not None
        # asyncpg has no public way to its socket. If this fails after an upgrade, look at `Connector._keep_alive`.
        tcp = raw.driver_connection._transport.get_extra_info("socket")
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 4321
        assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    await database.dispose()


async def test_a_service_file_and_a_password_file_name_the_server(
    front: TlsFront, authority: Authority, tmp_path: Path
) -> None:
    services, passwords = tmp_path / "services", tmp_path / "passwords"
    services.write_text(
        f"[shop]\nhost=127.0.0.1\nport={front.port}\ndbname=tls\nuser=postgres\nsslmode=verify-full\n"
        f"sslrootcert={authority.certificate}\n"
    )
    passwords.write_text("*:*:*:*:hush\n")
    passwords.chmod(0o600)
    url = f"postgresql:///?service=shop&servicefile={services}&passfile={passwords}"
    assert await asked(load_settings(database_url=url), "SELECT current_database()") == "tls"
    with pytest.raises(DatabaseUnavailable):
        await asked(load_settings(database_url=url + "&target_session_attrs=standby"))


async def test_of_several_hosts_the_first_that_answers_is_used(front: TlsFront) -> None:
    url = f"postgresql://postgres@127.0.0.1:1,127.0.0.1:{front.port}/tls?sslmode=require"
    assert await asked(load_settings(database_url=url)) == 1
