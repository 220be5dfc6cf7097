"""`payments load` as a process: it ends clean, also when it is interrupted, and leaves nothing behind."""

import json
import signal
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.commands import CONTROL, ENDS_MAX_S, Command, command
from tests.support.loads import parsed
from tests.support.servers import wait_until

CLEAN = "No payment was lost, and none was charged twice."


def load(printed: Path, *arguments: str) -> AbstractContextManager[Command]:
    return command(printed, "load", *arguments, settings={"PAYMENT_SUCCESS_RATE": "0", "LOG_LEVEL": "nonsense"})


@pytest.mark.slow
def test_a_small_load_on_the_embedded_default_is_clean_and_leaves_nothing_behind(tmp_path: Path) -> None:
    files = {name: tmp_path / f"load.{name}" for name in ("json", "plot.svg", "picture.svg")}
    options = ("--json", "--plot", "--picture")
    named = [word for option, path in zip(options, files.values(), strict=True) for word in (option, str(path))]
    with load(tmp_path / "printed", "--rate", "20", "--duration", "3", *named) as running:
        assert running.ends_clean() == 0, running.output
        assert len(running.family) >= 2, "the service and its Valkey"
    assert CLEAN in running.output
    assert CONTROL.search(running.output) is None
    report = json.loads(files["json"].read_text())
    assert report["requests"]["accepted"] == report["webhooks_received"] == 60
    assert sum(outcome["payments"] for outcome in report["outcomes"]) == sum(report["settled_by_second"]) == 60
    assert [second["offered"] for second in report["seconds"][:3]] == [20, 20, 20]
    completed = sum(outcome["payments"] for outcome in report["outcomes"] if outcome["status"] == "COMPLETED")
    assert completed > 0, "no setting of the shell reaches the service"
    assert f"{completed} charges in the gateway's ledger" in running.output
    for name in ("plot.svg", "picture.svg"):
        assert parsed(files[name].read_text()).tag.endswith("svg")


@pytest.mark.slow
def test_a_load_with_captures_and_refunds_is_judged_by_them_too(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    shares = ("--captures", "0.5", "--refunds", "0.5")
    with load(tmp_path / "printed", "--rate", "15", "--duration", "3", *shares, "--json", str(report)) as running:
        assert running.ends_clean() == 0, running.output
    assert CLEAN in running.output
    found = json.loads(report.read_text())
    assert found["captures"] > 0
    assert found["refunds"]["COMPLETED"] == found["refund_webhooks_received"] > 0
    assert found["webhooks_received"] == found["requests"]["accepted"] == 45
    assert found["captures_and_refunds_refused"].keys() <= {"refund: 409 refund_exceeds_balance"}
    ended = {outcome["status"] for outcome in found["outcomes"]}
    assert {"PARTIALLY_REFUNDED", "REFUNDED"} <= ended
    assert f"{found['refunds']['COMPLETED']} refunds in the gateway's ledger" in running.output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_load_waits_for_what_was_accepted_and_reports_the_end(
    number: signal.Signals, tmp_path: Path
) -> None:
    with load(tmp_path / "printed", "--rate", "20", "--duration", "60") as running:
        running.reaches("   2 s  ")
        running.process.send_signal(number)
        assert running.ends_clean() == 130, running.output
    assert CLEAN in running.output
    assert "Traceback" not in running.output


@pytest.mark.slow
def test_a_second_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    with load(tmp_path / "printed", "--rate", "20", "--duration", "60") as running:
        running.reaches("   2 s  ")
        for _ in range(2):
            running.process.send_signal(signal.SIGINT)
            running.reaches("No more payments are sent")
        assert running.ends_clean() == 130, running.output
    assert "Traceback" not in running.output


@pytest.mark.slow
def test_a_killed_load_leaves_no_process_behind(tmp_path: Path) -> None:
    with load(tmp_path / "printed", "--rate", "20", "--duration", "60", "--workers", "1") as running:
        running.reaches("   1 s  ")
        running.process.kill()
        wait_until(running.look, timeout_s=ENDS_MAX_S, what="it is dead")
        wait_until(lambda: not running.left(), timeout_s=ENDS_MAX_S, what="its processes end")
        assert len(running.family) >= 4, "PostgreSQL, Valkey, the API, a worker"


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    with load(tmp_path / "printed", "--rate", "30", "--duration", "10", "--workers", "2") as running:
        running.reaches("   4 s  ")
        workers = [one for one in running.family if one.is_running() and one.cmdline()[-1] == "worker"]
        assert len(workers) == 2
        workers[0].kill()
        assert running.ends_clean() == 0, running.output
    assert CLEAN in running.output


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_more_workers_settle_more(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    plot = tmp_path / "plot.svg"
    arguments = ("--workers", "1,2", "--slots", "10", "--duration", "20", "--json", str(report), "--plot", str(plot))
    with load(tmp_path / "printed", *arguments) as running:
        assert running.ends_clean(timeout_s=300) == 0, running.output
    one, two = json.loads(report.read_text())["steps"]
    assert (one["possible_per_s"], two["possible_per_s"]) == (5, 10)
    assert two["settled_per_s"] > one["settled_per_s"], running.output
    assert "measured" in plot.read_text()
