"""A short chaos holds, its seed decides what it does, and it leaves nothing behind, however it ends."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import psutil
import pytest

from tests.chaos.plan import planned_faults
from tests.chaos.run import FAULTS
from tests.support.servers import wait_until

SECONDS = 36  # every fault comes at least once
SETTLED_S = 240
STARTED_S = 60
GONE_S = 30


@contextmanager
def chaos(output: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "tests.chaos", *arguments], stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_seed_decides_every_fault_and_each_comes_before_any_comes_again() -> None:
    plan = list(planned_faults("1", list(FAULTS), seconds=SECONDS))
    assert plan == list(planned_faults("1", list(FAULTS), seconds=SECONDS))
    assert plan != list(planned_faults("2", list(FAULTS), seconds=SECONDS))
    assert {planned.fault for planned in plan} == set(FAULTS)
    assert len({planned.fault for planned in plan[: len(FAULTS)]}) == len(FAULTS)


@pytest.mark.slow
@pytest.mark.timeout(SETTLED_S + 60)
def test_whatever_breaks_every_journalled_payment_ends_and_is_charged_as_its_status_says(tmp_path: Path) -> None:
    report = tmp_path / "report"
    with chaos(tmp_path / "out", "--seconds", str(SECONDS), "--seed", "1", "--json", str(report)) as process:
        code = process.wait(SETTLED_S)
    assert code == 0, (tmp_path / "out").read_text()
    found = orjson.loads(report.read_bytes())
    assert found["findings"] == []
    assert set(found["faults"]) == set(FAULTS)
    assert found["accepted"] > SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_chaos_that_is_ended_leaves_no_process(tmp_path: Path, end: signal.Signals) -> None:
    output = tmp_path / "out"
    with chaos(output, "--seconds", "60", "--seed", "1") as process:
        wait_until(lambda: b"pause_api" in output.read_bytes(), timeout_s=STARTED_S, what="the third fault")
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) > 7, family
        process.send_signal(end)
        process.wait(GONE_S)
        _gone, alive = psutil.wait_procs(family, timeout=GONE_S)
    assert alive == []
