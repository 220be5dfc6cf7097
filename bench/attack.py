"""Hostile connections, in a process of their own: silent ones, half requests, slow drips, and floods of refusals.

They come from several addresses of loopback. A connection that the API closes is made again.
"""

import asyncio
import contextlib
import os
import resource
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic, process_time, time
from typing import Any
from urllib.parse import urlsplit

import orjson

# Source addresses. Connections that have ended keep their ports for a minute (TIME_WAIT). With two addresses, an attack
# that followed another one within that time took twice the processor to find free ones.
ADDRESSES = 100
# Connections are made over so many seconds, not all at once. The API waits as long for a request (by default), so that
# afterwards as many connections are ended and made again in every second.
RAMP_S = 30.0
# A connection that was closed is made again after this pause, in seconds.
PAUSE_S = 0.5
DRIP_S = 1.0
# They drip in so many groups, one after the other: a timer for each of thousands would take the processors from payers.
DRIP_GROUPS = 100
# Refusals per second of each flood.
FLOOD_PER_S = 50
FLOODERS = 50
DURATION_MAX_S, CONNECTIONS_MAX = 300, 10_000
# The attacker stands for other machines: it takes the processors that the service leaves.
NICENESS = 19
# Enough for the attacker and for the API, which has closed connections for two seconds more.
FILES = 15_000

_POST = b"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_LENGTH = _POST + b"Content-Length: 1000\r\n\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_ANSWERED = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
# What each kind sends at once, and what it drips afterwards: those whose first request does not arrive, and the others.
NEW: dict[str, tuple[bytes, bytes]] = {
    "silent": (b"", b""),
    "half a head": (b"GET /api/v1/payments HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 500, b""),
    "one byte of a body": (_LENGTH + b"{", b""),
    "a body that never comes": (_LENGTH, b""),
    "a head that drips": (b"G", b"E"),
    "a body that drips": (_LENGTH, b" "),
    "chunks that drip": (_CHUNKED, b"1\r\n \r\n"),
}
KINDS = NEW | {
    "large chunks that drip": (_CHUNKED + b"2400\r\n" + b" " * 0x2400 + b"\r\n", b"1\r\n \r\n"),
    "a second request that drips": (_ANSWERED + _LENGTH, b" "),
}
FLOODS = {
    "431": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000,
    "413": _POST + b"Content-Length: 70000\r\n\r\n",
}


class Attack:
    """One run of a plan: `connections` are held for `duration_s` seconds, besides the floods."""

    def __init__(self, plan: dict[str, Any]) -> None:
        url = urlsplit(plan["url"])
        self._host, self._port = url.hostname or "", url.port or 80
        self._connections = min(plan["connections"], CONNECTIONS_MAX)
        self._duration_s = min(plan["duration_s"], DURATION_MAX_S)
        self.open_now = 0
        self.open_most = 0
        # When all connections are there, as a Unix time.
        self.complete_at = 0.0
        self.made: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self._dripping: list[dict[asyncio.StreamWriter, bytes]] = [{} for _ in range(DRIP_GROUPS)]

    async def run(self) -> dict[str, Any]:
        """Run the attack and return what came of it."""
        cpu = process_time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._duration_s), asyncio.TaskGroup() as hostile:
                hostile.create_task(self._drip())
                for number in range(FLOODERS):
                    for name, request in FLOODS.items():
                        hostile.create_task(self._flood(name, request, number))
                kinds = list(KINDS)
                for number in range(self._connections):
                    hostile.create_task(self._hold(kinds[number % len(kinds)], number))
                    await asyncio.sleep(RAMP_S / self._connections)
                self.complete_at = time()
        return {
            "cpu_share": (process_time() - cpu) / self._duration_s,
            "open_most": self.open_most,
            "complete_at": self.complete_at,
            "made": self.made,
            "answers": self.answers,
        }

    async def _hold(self, kind: str, number: int) -> None:
        begin, drip = KINDS[kind]
        group = self._dripping[number % DRIP_GROUPS]

        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
            writer.write(begin)
            if drip:
                group[writer] = drip
            try:
                return await reader.read(-1)
            finally:
                group.pop(writer, None)

        while True:
            await self._connect(kind, number, send)
            await asyncio.sleep(PAUSE_S)

    async def _drip(self) -> None:
        due = monotonic()
        while True:
            for group in self._dripping:
                due += DRIP_S / DRIP_GROUPS
                await asyncio.sleep(due - monotonic())
                for writer, drip in group.items():
                    if not writer.is_closing():
                        writer.write(drip)

    async def _flood(self, kind: str, request: bytes, number: int) -> None:
        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
            writer.write(request)
            return await reader.read(-1)

        await asyncio.sleep(number / FLOOD_PER_S)
        while True:
            await self._connect(kind, number, send)
            await asyncio.sleep(FLOODERS / FLOOD_PER_S)

    async def _connect(
        self, kind: str, number: int, send: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]
    ) -> None:
        """Make a connection from an address of its own, and count what is answered until it is closed."""
        source = f"127.0.1.{1 + number % ADDRESSES}"
        self.made[kind] += 1
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port, local_addr=(source, 0))
        except OSError as error:
            self.answers[f"{kind}: {type(error).__name__}"] += 1
            return
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        try:
            answer = await send(reader, writer)
            self.answers[f"{kind}: {answer[9:12].decode() or 'closed'}"] += 1
        except OSError as error:
            self.answers[f"{kind}: {type(error).__name__}"] += 1
        finally:
            self.open_now -= 1
            writer.close()


def raise_file_limit(files: int) -> None:
    """Let this process and its children open so many files. Raises RuntimeError where the machine forbids it."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        raise RuntimeError(f"This machine allows {hard} open files for a process, and the measure needs {files}.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


def main() -> None:
    """Read a plan from the file in the first argument, run it, and write the results to that in the second."""
    import uvloop  # noqa: PLC0415 - only the process that attacks needs it

    plan_file, result_file = map(Path, sys.argv[1:3])
    raise_file_limit(FILES)
    os.nice(NICENESS)
    result_file.write_bytes(orjson.dumps(uvloop.run(Attack(orjson.loads(plan_file.read_bytes())).run())))


if __name__ == "__main__":
    main()
