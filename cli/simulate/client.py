"""The API as the commands of `payments simulate` call it: on this machine unless they are told another address."""

from typing import Any

import httpx
import typer

from cli.errors import EXIT_CANNOT_START, errors
from cli.tokens import mint
from shared.config.settings import load_settings

PREFIX = "/api/v1/simulation"
# Seconds; an advance of the clock answers after 25 at most.
TIMEOUT_S = 40.0
# Hours for which the token of a command is valid.
TOKEN_HOURS = 1.0


class SimulationClient:
    """Calls the API at `url`; without one, the API on HOST:PORT. Without a `token`, one is made with JWT_SECRET_KEY."""

    def __init__(self, url: str | None, token: str | None) -> None:
        settings = load_settings()
        self.url = (url or f"http://{settings.local_host}:{settings.port}{settings.root_path or ''}").rstrip("/")
        self._token = token or mint(settings, user="payments-simulate", role="admin", hours=TOKEN_HOURS)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return what the API answers, as JSON. If it refuses or is not there, say so and exit."""
        try:
            answer = httpx.request(
                method,
                f"{self.url}{PREFIX}{path}",
                json=body,
                headers={"Authorization": f"Bearer {self._token}"},
                timeout=TIMEOUT_S,
                trust_env=False,
            )
        except httpx.HTTPError as error:
            errors.print(f"The API does not answer at {self.url}: {error}", style="red", markup=False)
            raise typer.Exit(EXIT_CANNOT_START) from None
        if answer.is_error:
            errors.print(_refusal(answer), style="red", markup=False)
            raise typer.Exit(EXIT_CANNOT_START)
        return answer.json() if answer.content else None


def _refusal(answer: httpx.Response) -> str:
    """Return what a problem document says, in a line or two."""
    try:
        problem = answer.json()
        faults = [f"{fault['pointer']}: {fault['detail']}" for fault in problem.get("errors", ())]
        return "\n".join([f"{problem['title']}. {problem.get('detail') or ''}".strip(), *faults])
    except (KeyError, TypeError, ValueError):
        return f"The answer was {answer.status_code}, and it is none of the payment service."
