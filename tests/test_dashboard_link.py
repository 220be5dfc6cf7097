"""The link that `payments up` prints on a terminal: it signs in, and it is printed nowhere else."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from api.dashboard.visitors import COOKIE
from cli.local.service import CHECKOUT, clean_environment, free_port
from tests.support.waiting import eventually

COMMAND = [sys.executable, "-c", "from cli.main import app; app()", "up"]
LINK = re.compile(r"http://127\.0\.0\.1:\d+/dashboard/sign-in\?link=[\w-]{43}")
STARTS_WITHIN_S = 60


class Terminal:
    """What is at the other end of a pseudo-terminal: it reads what is written there."""

    def __init__(self) -> None:
        self.reads, self.writes = pty.openpty()
        os.set_blocking(self.reads, False)
        self._text = b""

    @property
    def text(self) -> str:
        """All that was written so far."""
        try:
            while part := os.read(self.reads, 65_536):
                self._text += part
        except (BlockingIOError, OSError):
            pass
        return self._text.decode()


@contextmanager
def up(folder: Path, *, streams: tuple[bool, bool], **settings: str) -> Iterator[tuple[int, Terminal, Path]]:
    """`payments up`, whose output and errors are a terminal or a file: its port, its terminal and its file."""
    terminal, log, port = Terminal(), folder / "log", free_port()
    environment = {**clean_environment(os.environ), "PYTHONPATH": str(CHECKOUT), "PORT": str(port), **settings}
    with log.open("wb") as file:
        output, errors = (terminal.writes if is_terminal else file for is_terminal in streams)
        process = subprocess.Popen(COMMAND, cwd=folder, stdout=output, stderr=errors, env=environment)
    try:
        yield port, terminal, log
    finally:
        process.terminate()
        assert process.wait(40) == 0
        os.close(terminal.reads)
        os.close(terminal.writes)


async def answers(port: int) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            return (await http.get(f"http://127.0.0.1:{port}/health")).is_success
    except httpx.TransportError:
        return False


async def test_on_a_terminal_a_link_is_printed_that_signs_in(tmp_path: Path) -> None:
    with up(tmp_path, streams=(True, True)) as (port, terminal, _):
        await eventually(lambda: answers(port), STARTS_WITHIN_S)
        await eventually(lambda: LINK.search(terminal.text) is not None, STARTS_WITHIN_S)
        [link] = LINK.findall(terminal.text)
        async with httpx.AsyncClient(trust_env=False) as browser:
            answer = await browser.get(link)
            assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")
            assert COOKIE in browser.cookies
            assert (await browser.get(f"http://127.0.0.1:{port}/dashboard")).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("streams", "settings"),
    [((True, False), {}), ((False, True), {}), ((False, False), {}), ((True, True), {"DASHBOARD": "off"})],
)
async def test_elsewhere_no_link_is_printed(
    tmp_path: Path, streams: tuple[bool, bool], settings: dict[str, str]
) -> None:
    with up(tmp_path, streams=streams, **settings) as (port, terminal, log):
        await eventually(lambda: answers(port), STARTS_WITHIN_S)
        assert LINK.search(terminal.text + log.read_text()) is None
