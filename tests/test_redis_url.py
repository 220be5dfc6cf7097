"""REDIS_URL: every option works or is refused by name, encryption works, and a password is never shown."""

import ipaddress
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from shared.broker.client import open_broker
from shared.config.redis_url import OPTIONS, CertificateCheck, Credentials, RedisAddress, parse_redis_url
from shared.errors import ConfigurationError
from tests.support.processes import PaymentsProcess, processes
from tests.support.redis_processes import RedisProcess
from tests.support.redis_proxy import redis_proxy
from tests.support.servers import ValkeyServer, free_port
from tests.support.survival import MakeSettings, on_sqlite
from tests.support.waiting import eventually

PASSWORD = "p@ss/w?rd#1:ü"
QUOTED = "p%40ss%2Fw%3Frd%231%3A%C3%BC"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", RedisAddress(hosts=(("h", 6379),))),
        ("redis://h:7/3", RedisAddress(hosts=(("h", 7),), database=3)),
        ("redis://[::1]:7/0", RedisAddress(hosts=(("::1", 7),))),
        ("redis:///2", RedisAddress(hosts=(("localhost", 6379),), database=2)),
        ("redis://h?db=4", RedisAddress(hosts=(("h", 6379),), database=4)),
        (f"redis://:{QUOTED}@h", RedisAddress(hosts=(("h", 6379),), credentials=Credentials(password=PASSWORD))),
        (
            f"redis://u:{QUOTED}@h",
            RedisAddress(hosts=(("h", 6379),), credentials=Credentials(username="u", password=PASSWORD)),
        ),
        (
            f"unix:///a%20b/s.sock?db=1&username=u&password={QUOTED}",
            RedisAddress(path="/a b/s.sock", database=1, credentials=Credentials(username="u", password=PASSWORD)),
        ),
        ("redis+sentinel://a/m", RedisAddress(hosts=(("a", 26379),), master="m")),
        (
            f"redis+sentinel://u:{QUOTED}@a:1,b,[::1]:3/my%20master/5?sentinel_username=s&sentinel_password=t",
            RedisAddress(
                hosts=(("a", 1), ("b", 26379), ("::1", 3)),
                master="my master",
                database=5,
                credentials=Credentials(username="u", password=PASSWORD),
                sentinel_credentials=Credentials(username="s", password="t"),
            ),
        ),
    ],
)
def test_a_url_says_where_redis_is(url: str, address: RedisAddress) -> None:
    assert parse_redis_url(url) == address
    assert PASSWORD not in repr(parse_redis_url(url))


def test_encrypted_connections_check_certificate_and_name_unless_the_url_says_otherwise() -> None:
    strict = parse_redis_url("rediss://h?ssl_ca_certs=/ca.pem&ssl_certfile=/c&ssl_keyfile=/k").tls
    assert strict is not None
    assert (strict.check, strict.checks_hostname) == (CertificateCheck.REQUIRED, True)
    assert (strict.ca_certs, strict.certfile, strict.keyfile) == ("/ca.pem", "/c", "/k")
    for word in ("none", "NONE", "CERT_NONE"):
        open_ = parse_redis_url(f"rediss+sentinel://h/m?ssl_cert_reqs={word}").tls
        assert open_ is not None
        assert (open_.check, open_.checks_hostname) == (CertificateCheck.NONE, False)
    loose = parse_redis_url("rediss://h?ssl_check_hostname=no").tls
    assert loose is not None
    assert not loose.checks_hostname
    assert parse_redis_url("redis://h").tls is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("valkey://h", "must start with redis://"),
        ("redis:h", "must start with redis://"),
        ("redis://h?socket_timeout=1", "the option socket_timeout, which is not supported"),
        ("redis://h?max_connections=1", "the option max_connections"),
        ("redis://h?protocol=3", "the option protocol"),
        ("redis://h?SSL_CA_CERTS=x", "the option SSL_CA_CERTS"),
        ("redis://h?ssl_ca_certs=/ca.pem", "ssl_ca_certs, which needs rediss://"),
        ("redis://h?sentinel_password=x", "sentinel_password, which needs redis+sentinel://"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs that is none of none, optional, required"),
        ("rediss://h?ssl_check_hostname=maybe", "ssl_check_hostname that is neither true nor false"),
        ("rediss://h?ssl_check_hostname=true&ssl_cert_reqs=none", "needs ssl_cert_reqs=required"),
        ("rediss://h?ssl_certfile=/c", "both ssl_certfile and ssl_keyfile"),
        ("redis://h?db=1&db=2", "the option db twice"),
        ("redis://u:p@h?password=q", "the password twice"),
        ("redis://h/x", "not the number of a database"),
        ("redis://h/-1", "not the number of a database"),
        ("redis://h/0/1", "not the number of a database"),
        ("redis://h?db=x", "not the number of a database"),
        ("redis://a,b", "several hosts, which only redis+sentinel://"),
        ("redis+sentinel://a", "must name the master"),
        ("redis+sentinel://a/m/0/x", "must name the master"),
        ("redis+sentinel://a:0/m", "port between 1 and 65535"),
        ("unix://h/s", "names no socket"),
        ("unix://", "names no socket"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("+", r"\+")) as refused:
        parse_redis_url(url)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2#x@h", "redis://:a?hunter2@h", "redis://:hunter2/x@h", "redis://:hunter2@h:hunter2",
        "redis://[hunter2", "redis://h/hunter2", "redis://h?hunter2-x=1", "hunter2", "rediss://h?ssl_cert_reqs=hunter2",
        "redis://h?db=hunter2", "redis+sentinel://:hunter2@a:x/m",
    ],
)  # fmt: skip
def test_no_refusal_repeats_what_may_be_a_password(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse_redis_url(url)
    assert "hunter2" not in str(refused.value)


def test_the_options_are_a_closed_set() -> None:
    for name in OPTIONS:
        with pytest.raises(ValueError, match="twice"):
            parse_redis_url(f"rediss+sentinel://h/m?{name}=0&{name}=0")


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
def test_a_certificate_that_cannot_be_read_stops_the_start(option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"REDIS_URL: {option} names a file that cannot be read"):
        open_broker(f"rediss://h?{option}=/nowhere.pem" + ("&ssl_keyfile=/nowhere.pem" * (option == "ssl_certfile")))


# -- encryption, in front of a real server


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and its certificate for 127.0.0.1, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis of the tests")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.mark.parametrize(
    ("host", "options", "works"),
    [
        ("127.0.0.1", "?ssl_ca_certs={ca}", True),
        ("127.0.0.1", "?ssl_ca_certs={ca}&ssl_cert_reqs=required&ssl_check_hostname=true", True),
        ("127.0.0.1", "?ssl_ca_certs={ca}&ssl_certfile={ca}&ssl_keyfile={ca}", True),
        ("127.0.0.1", "?ssl_cert_reqs=none", True),
        ("127.0.0.1", "", False),
        ("localhost", "?ssl_ca_certs={ca}", False),
        ("localhost", "?ssl_ca_certs={ca}&ssl_check_hostname=false", True),
    ],
)
async def test_a_certificate_counts_as_the_url_says(
    own: ValkeyServer, certificate: Path, host: str, options: str, works: bool
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with redis_proxy(own.url, tls=context) as proxy:
        broker = open_broker(f"rediss://{host}:{proxy.port}/0{options.format(ca=certificate)}")
        with capture_logs() as logs:
            assert await broker.probe() is works
        await broker.close()
    if not works:
        assert "certificate verify failed" in logs[0]["error"].lower()


# -- refused at the start, by name


@on_sqlite
@pytest.mark.parametrize("command", ["api", "worker", "up"])
async def test_cluster_mode_is_refused_by_name(make_settings: MakeSettings, tmp_path: Path, command: str) -> None:
    # By default the port of the cluster bus is 10,000 above the other one, and may be none.
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with RedisProcess(tmp_path / "redis", *options) as clustered:
        process = PaymentsProcess(command, tmp_path / command, make_settings(redis_url=clustered.url))
        with processes(process):
            assert await process.ended() == 2
    assert "REDIS_URL: this Redis runs in cluster mode, which is not supported." in " ".join(process.errors.split())
    assert "Traceback" not in process.errors


async def test_a_sentinel_in_the_place_of_a_server_is_refused_by_name(tmp_path: Path) -> None:
    with RedisProcess(tmp_path / "sentinel", "--sentinel") as sentinel:
        broker = open_broker(sentinel.url)
        with pytest.raises(ConfigurationError, match="REDIS_URL: this is a Sentinel"):
            await broker.require_supported()
        await broker.close()


async def test_a_redis_that_is_away_stops_no_start() -> None:
    broker = open_broker(f"redis://127.0.0.1:{free_port()}")
    await broker.require_supported()
    await broker.close()


@on_sqlite
@pytest.mark.parametrize("command", ["api", "worker"])
async def test_no_password_is_in_any_log(make_settings: MakeSettings, tmp_path: Path, command: str) -> None:
    with ValkeyServer(tmp_path / "valkey") as own, redis.Redis.from_url(own.url) as operator:
        operator.config_set("requirepass", "another one")
        async with redis_proxy(own.url) as proxy:
            url = f"redis://:{QUOTED}@127.0.0.1:{proxy.port}/0"
            process = PaymentsProcess(command, tmp_path / command, make_settings(redis_url=url, log_level="DEBUG"))
            with processes(process):
                await process.ready()
                await eventually(lambda: "AuthenticationError" in process.output, 30)
                process.terminate()
                assert await process.ended() == 0
    for shown in (process.output, process.errors):
        assert not any(spelling in shown for spelling in (PASSWORD, QUOTED, "p@ss", "p%40ss"))
