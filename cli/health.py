"""`payments health`: ask a process on this host whether it is healthy."""

from typing import NoReturn

import httpx
import typer

from cli.errors import EXIT_WRONG_SETTINGS, errors
from shared.config.settings import Settings

TIMEOUT_S = 3.0


def check_health(settings: Settings, *, of_worker: bool) -> NoReturn:
    """Print what the API, or the worker, on this host says of its health. Exit with 1 if it is not healthy."""
    port = settings.metrics_port if of_worker else settings.port
    if not port:
        errors.print("METRICS_PORT is 0, so the worker has no health endpoint. Set METRICS_PORT to a port.")
        raise typer.Exit(EXIT_WRONG_SETTINGS)
    host = settings.local_host
    try:
        answer = httpx.get(f"http://{host}:{port}/health", timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError as error:
        errors.print(f"No process answers on {host}:{port}: {error}", markup=False)
        raise typer.Exit(1) from None
    print(answer.text)
    raise typer.Exit(0 if answer.is_success else 1)
