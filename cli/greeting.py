"""What `payments up` says to people when it is ready: where it listens, and a request to paste."""

import sys
from typing import Any

from rich.console import Console
from rich.style import Style
from rich.text import Text

from cli.tokens import mint
from shared.config.security import DEVELOPMENT_SECRET
from shared.config.settings import Settings
from shared.log_stream import stream_of
from shared.version import VERSION

# The lines of a terminal are at least this long.
WIDTH = 100
ASSIGNMENT = "TOKEN="


def greet(settings: Settings, sign_in_link: str | None = None) -> None:
    """Print the service's URL, a link that signs in to the dashboard, a token and a request to paste.

    This is for people, so it goes to standard error.

    The standard error of a container is its log. So a token is shown only if it is signed with the public development
    secret, with which every reader of the log could make one.
    """
    url = settings.local_url
    is_public_secret = settings.jwt_secret_key.get_secret_value() == DEVELOPMENT_SECRET
    bearer = mint(settings, user="1", role=None, hours=12) if is_public_secret else "$(payments token --user 1)"
    # A standard error that cannot be written must not end the service that is starting.
    stream: Any = stream_of(sys.stderr)
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    out = Console(file=stream, force_terminal=is_terminal, highlight=False, soft_wrap=True)
    out.print()
    # Not as markup: the address of an IPv6 host has brackets.
    out.print(Text.assemble((f"Payment service {VERSION}", "bold"), " on ", (url, Style(link=url))))
    out.print(f"docs: {url}/docs", markup=False)
    if sign_in_link is not None:
        out.print(f"dashboard: {sign_in_link}", markup=False)
    elif settings.is_dashboard_on:
        out.print(f"dashboard: {url}/dashboard", markup=False)
    out.print()
    if settings.environment == "development":
        out.print(continued(ASSIGNMENT + bearer), markup=False)
        out.print(
            f"""API={url}/api/v1
H="Authorization: Bearer $TOKEN"; J='Content-Type: application/json'

METHOD=$(curl -s $API/payment-methods -H "$H" -H "$J" -d '{{"type": "CREDIT_CARD", "payment_details":
  {{"card_number": "4242424242424242", "exp_month": 12, "exp_year": 2030, "cvv": "123"}}}}' \\
  | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')

curl -i $API/payments -H "$H" -H "$J" -H 'Prefer: wait=5' \\
  -d '{{"order_id": "'$RANDOM'", "amount": 1585, "payment_method_id": "'$METHOD'"}}'
""",
            markup=False,
        )


def continued(text: str) -> str:
    """Return one word of a shell in lines of at most WIDTH characters, each but the last one ending in a backslash."""
    part = WIDTH - 1
    return "\\\n".join(text[begin : begin + part] for begin in range(0, len(text), part))
