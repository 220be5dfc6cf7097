"""What a load shows: live, as a picture, as a table and as a plot."""

import io
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from cli.load.client import Figures, WorkerFigures
from cli.load.frame import Look, frame
from cli.load.payment_tally import PaymentTally
from cli.load.plan import Refused
from cli.load.plot import Line, Plot, check_plot_name, svg
from cli.load.progress import Progress, Sample
from cli.load.request_counts import Second, Spread
from cli.load.scaling import measured, parse_workers, possible_per_s, saturating_rate
from cli.load.scaling import plot as scaling_plot
from cli.load.scaling import table as scaling_table
from cli.load.targets import Target
from cli.load.view import View, plain_line
from cli.screenshot import screenshot
from cli.terminal import standard_output
from shared.lifecycle import PaymentStatus
from tests.support.commands import CONTROL
from tests.support.loads import a_plan, parsed, shown


def a_worker(number: int, *, in_gateway: int = 40, checking_orders: int = 0, settled: int = 0) -> WorkerFigures:
    return WorkerFigures(f"host-{number}-abcd", 50, in_gateway, checking_orders, settled, 24.0)


def some_figures(workers: tuple[WorkerFigures, ...] | None) -> Figures:
    return Figures(
        computed_at=0.0,
        queue_depth=12,
        in_flight=90,
        oldest_pending_s=0.4,
        webhook_backlog=3,
        settled_per_s=48.0,
        workers=workers,
    )


def a_sample(at_s: int, figures: Figures | None) -> Sample:
    return Sample(at_s, Second(20, 19, 1, 0), Spread(5, 9, 12, 40), 10, figures, None)


def a_progress(*figures: Figures | None) -> Progress:
    target = Target(url="http://127.0.0.1:8009", words="a running deployment", payers=("t",), watcher="t")
    progress = Progress(a_plan(), target, phase="sending")
    progress.samples = [a_sample(at_s, found) for at_s, found in enumerate(figures, start=1)]
    progress.figures = figures[-1]
    progress.payment_tally.ends.update({(PaymentStatus.COMPLETED, ""): 30, (PaymentStatus.FAILED, "card_declined"): 2})
    return progress


def seen(progress: Progress, look: Look) -> list[str]:
    printed = io.StringIO()
    Console(file=printed, width=look.width, highlight=False).print(frame(progress, look))
    return printed.getvalue().splitlines()


def test_a_pipe_gets_one_plain_line_per_second() -> None:
    line = plain_line(a_sample(3, some_figures((a_worker(1), a_worker(2)))), "")
    assert CONTROL.search(line) is None
    assert line == (
        "   3 s  offered 20/s  accepted 19/s  refused 1/s, not sent 0/s  settled 48/s  queue 12  processing 90"
        "  webhooks waiting 3  workers 2  202 after 5/9/12 ms (p50/p95/p99)"
    )
    assert "settled" not in plain_line(a_sample(3, None), "")


@pytest.mark.parametrize("width", [80, 104, 180])
@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_the_live_view_fits_the_terminal_and_has_a_bar_for_each_worker(width: int, count: int) -> None:
    look = Look(width=width, height=40, ascii_only=True)
    lines = seen(a_progress(some_figures(tuple(a_worker(number) for number in range(count)))), look)
    assert all(len(line.rstrip()) <= width for line in lines)
    assert max(len(line.rstrip()) for line in lines) == width, "it uses the whole of it"
    assert sum(line.count("40/50") for line in lines) == count
    text = "\n".join(lines)
    assert ("No worker is alive." in text) == (count == 0)
    for words in ("offered", "accepted", "settled", "p50", "p99", "queue depth", "processing", "webhook backlog"):
        assert words in text
    assert re.search(r"card_declined +2 +6.2%", text)


def test_the_bar_of_a_worker_counts_every_taken_slot() -> None:
    lines = seen(a_progress(some_figures((a_worker(1, in_gateway=20, checking_orders=15),))), Look())
    assert sum(line.count("35/50") for line in lines) == 1


def test_a_worker_that_goes_is_still_named_for_a_moment_and_then_vanishes() -> None:
    both, one = some_figures((a_worker(1), a_worker(2))), some_figures((a_worker(1),))
    assert "gone" not in "\n".join(seen(a_progress(both, both), Look()))
    assert re.search(r"host-2-abcd +gone", "\n".join(seen(a_progress(both, one), Look())))
    assert "host-2" not in "\n".join(seen(a_progress(both, one, one, one, one), Look()))


def test_a_small_terminal_shows_as_many_workers_as_fit_and_says_so() -> None:
    look = Look(width=80, height=24, ascii_only=True)
    lines = seen(a_progress(some_figures(tuple(a_worker(number) for number in range(16)))), look)
    assert len(lines) <= look.height
    assert "10 not shown" in "\n".join(lines)


def test_without_an_admins_token_the_live_view_says_why_it_knows_less() -> None:
    lines = seen(a_progress(None), Look())
    assert "admin" in "\n".join(lines)
    [settled] = [line for line in lines if "settled" in line]
    assert re.search(r"settled +\? ", settled), "what is not known is not 0"


def test_the_live_view_has_no_width_of_its_own() -> None:
    wide = Console(file=io.StringIO(), width=180)
    assert View(wide).console.width == 180
    assert standard_output().width == Console().width
    assert standard_output(width_max=20).width == 20


def test_a_screenshot_is_an_svg_that_fetches_nothing() -> None:
    picture = screenshot(frame(a_progress(some_figures((a_worker(1),))), Look()), width=104, title="payments load")
    assert parsed(picture).tag.endswith("svg")
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "").replace(
        "https://www.textualize.io", ""
    ).replace("http://127.0.0.1:8009", "")
    assert "host-1-abcd" in picture


# -- scaling and plots


def test_numbers_of_workers_are_bounded() -> None:
    assert parse_workers("1, 2,4") == [1, 2, 4]
    for text in ("", "1,,2", "-1", "17", "two", ",".join("1" * 9)):
        with pytest.raises(Refused, match="--workers"):
            parse_workers(text)


def test_the_line_is_workers_times_slots_by_the_mean_delay() -> None:
    assert possible_per_s(4, 50) == 100
    assert saturating_rate([1, 4], 50) == 120


def test_a_step_is_measured_while_all_slots_are_busy() -> None:
    progress = a_progress(None)
    progress.plan = a_plan(rate=30, duration_s=20)
    progress.sent_for_s = 20
    progress.payment_tally = PaymentTally("7")
    # Accepted at 30/s, settled at 25/s from the start.
    for number in range(600):
        one = shown(f"7{number}", "COMPLETED", at_s=number / 30)
        ended = datetime.fromtimestamp(1_000_000 + number / 25, UTC).isoformat()
        progress.payment_tally.see(one | {"processed_at": ended})
    progress.samples = [
        a_sample(at_s, some_figures((a_worker(1, settled=at_s * 14), a_worker(2, settled=at_s * 10))))
        for at_s in range(1, 25)
    ]
    step = measured(progress, workers=1, slots=50)
    assert step.settled_per_s == pytest.approx(25, rel=0.01)
    assert step.share == pytest.approx(1, rel=0.01)
    assert step.least_share == pytest.approx(10 / 12)
    assert step.most_share == pytest.approx(14 / 12)
    printed = io.StringIO()
    Console(file=printed, width=80, highlight=False).print(scaling_table([step]))
    assert re.search(r"1 │ +25.0 │ +25.0 │ +\d+.\d% │ -17% \+17%", printed.getvalue())
    assert "workers x slots / mean delay" in svg(scaling_plot([step], "a load"))


def test_a_run_that_is_too_short_has_no_rate() -> None:
    progress = a_progress(None)
    progress.payment_tally = PaymentTally("7")
    progress.payment_tally.see(shown("70", "COMPLETED"))
    assert measured(progress, workers=1, slots=50).settled_per_s is None


def test_a_plot_is_a_whole_svg_with_every_line_inside() -> None:
    lines = (
        Line("possible & more", [(0, 0), (8, 200)], "#000", is_dashed=True),
        Line("measured", [(1, 24), (8, 190.5)], "#0a0", has_points=True),
    )
    picture = svg(Plot(title="a <title>", subtitle="", x_name="x", y_name="y", lines=lines, x_ticks=[1, 8]))
    root = parsed(picture)
    assert [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")] == ["a <title>"]
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == 2
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert all(0 < float(one.attrib["cx"]) < width and 0 < float(one.attrib["cy"]) < height for one in circles)
    assert svg(Plot(title="", subtitle="", x_name="", y_name="", lines=[Line("none", [], "#000")])).endswith("</svg>\n")


def test_a_plot_is_an_svg() -> None:
    check_plot_name(Path("plot.SVG"))
    with pytest.raises(Refused, match="SVG"):
        check_plot_name(Path("plot.png"))
