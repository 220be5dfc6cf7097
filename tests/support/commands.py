"""A command of ours in a process of its own: what it prints, and every process that it ever had."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.processes import PaymentsProcess, lives, processes
from tests.support.servers import wait_until

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
# The slowest take 12 s; a loaded machine may need much longer.
WORDS_MAX_S = 120
# A stop is bounded by 20 s.
ENDS_MAX_S = 40


@dataclass(slots=True)
class Command:
    """One that runs."""

    process: subprocess.Popen[bytes]
    temporary: Path
    printed: Path
    family: set[psutil.Process] = field(default_factory=set)

    @property
    def output(self) -> str:
        return self.printed.read_text()

    def look(self) -> bool:
        """Note which processes belong to it; True once it has ended."""
        try:
            self.family.update(psutil.Process(self.process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return True
        return self.process.poll() is not None

    def reaches(self, words: str) -> None:
        """It prints them before it ends."""
        wait_until(lambda: self.look() or words in self.output, timeout_s=WORDS_MAX_S, what=words)
        assert words in self.output

    def ends(self, timeout_s: float = WORDS_MAX_S) -> int:
        """Its exit code; no process of it is left then."""
        wait_until(self.look, timeout_s=timeout_s, what="it ends")
        wait_until(lambda: not self.left(), timeout_s=ENDS_MAX_S, what="its processes end")
        return self.process.wait()

    def ends_clean(self, timeout_s: float = WORDS_MAX_S) -> int:
        """Its exit code; no process and no file of it is left then."""
        code = self.ends(timeout_s)
        assert list(self.temporary.iterdir()) == []
        return code

    def left(self) -> list[psutil.Process]:
        """Processes of it that have not ended."""
        return [one for one in self.family if lives(one)]


@contextmanager
def command(printed: Path, *arguments: str, settings: Mapping[str, str]) -> Iterator[Command]:
    """`payments ARGUMENTS`, not in a terminal, in a shell with `settings` that must not reach what it starts."""
    # Its path is short, for a socket lies in it.
    with tempfile.TemporaryDirectory() as temporary, printed.open("wb") as output:
        # PostgreSQL does not run as root, and its user passes through.
        Path(temporary).chmod(0o755)
        environment = {**os.environ, **settings, "TMPDIR": temporary}
        # They ask for escape codes or another width.
        for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
            environment.pop(name, None)
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; from cli.main import app; app(sys.argv[1:])", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        running = Command(process, Path(temporary), printed)
        try:
            yield running
        finally:
            process.kill()
            process.wait()
            for leftover in running.left():
                leftover.kill()


async def words_of_a_failed_start(process: PaymentsProcess, *, code: int, timeout_s: float = 30) -> str:
    """What it says before it ends."""
    with processes(process):
        assert await process.ended(timeout_s) == code, process.errors + process.output
    assert "Traceback" not in process.errors + process.output
    return " ".join(process.errors.split())
