"""What the commands of `payments simulate` ask the API of a running service."""

from dataclasses import dataclass
from typing import Any, NoReturn

import httpx
import typer
from rich.console import Console

from cli.tokens import TokenRole, mint
from shared.config.settings import load_settings

# The name of the admin for whom a token is made.
ADMIN = "cli"
TOKEN_HOURS = 0.5
# A request may be held for 25 s.
TIMEOUT_S = 35.0
EXIT_NOT_DONE = 1

messages = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Service:
    """A running service: the URL of its API, and the token of an admin. Without them, the one on this machine."""

    url: str | None
    token: str | None

    def ask(self, method: str, path: str, *, json: Any = None, params: dict[str, Any] | None = None) -> Any:
        """Return the JSON of the answer; None if it has none. Exit with the reason if the service refuses.

        Raises ConfigurationError.
        """
        settings = load_settings()
        url = (self.url or settings.local_url).rstrip("/")
        token = self.token or mint(settings, user=ADMIN, role=TokenRole.ADMIN, hours=TOKEN_HOURS)
        try:
            answer = httpx.request(
                method,
                f"{url}/api/v1{path}",
                json=json,
                params=params,
                headers={"Authorization": f"Bearer {token}"},
                timeout=TIMEOUT_S,
                # Only an address that was named may be reached through a proxy.
                trust_env=self.url is not None,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = str(error).rstrip(".")
            _give_up(f"No service answers at {url}: {why}. Start one with `payments up`, or name its --url.")
        if not answer.is_success:
            _give_up(*_reasons(answer))
        return answer.json() if answer.content else None


def service_of(context: typer.Context) -> Service:
    """Return the service that the options of the group name."""
    found: Service = context.obj
    return found


def _reasons(answer: httpx.Response) -> list[str]:
    try:
        problem = answer.json()
        wrong = [f"{error['detail']} ({error['pointer']})" for error in problem.get("errors", ())]
        return [f"{problem['title']}.", *([problem["detail"]] if "detail" in problem else []), *wrong]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"The service answered {answer.status_code}. Is this the URL of a payment service?"]


def _give_up(*lines: str) -> NoReturn:
    for line in lines:
        messages.print(line, style="red", markup=False)
    raise typer.Exit(EXIT_NOT_DONE)
