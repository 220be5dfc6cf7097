"""Rules of an installation for the values of a body: the limits of its settings, and its policy for URLs.

They are checked while the body is validated, so that one answer names every wrong field. They ask no database and no
network.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime

from api.faults import refusal
from api.problems import UNUSABLE_METHOD, Code
from shared.errors import UrlRefused
from shared.ids import is_order_number
from shared.runtime import Runtime
from shared.simulation.ready_made import NAME_PREFIX, READY_MADE
from shared.webhooks.url_policy import check_callback_url, check_return_url

INT64_MAX = 2**63 - 1
NO_LINKS = (
    "must be left out: this installation cannot make links for customers, because it does not know under which address "
    "they reach it. Its operator can set PUBLIC_URL"
)
NO_SUCH_NAME = "There is no ready-made payment method with this name. GET /test-methods has all."


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides about the values of a body: the installation, and whether a user sent it."""

    runtime: Runtime
    is_user: bool
    # The clock of this host, once the request is known to be faulty. Without another fault only the clock of the
    # database says what is in the past.
    now: datetime | None = None


# Without rules only the form is checked, for example by the benchmarks of FastAPI alone; a URL is not accepted then.
RULES: ContextVar[Rules | None] = ContextVar("rules", default=None)


def clock_beside_faults() -> datetime | None:
    """Return the time by which moments are judged while other faults are named; None if there is no other fault."""
    rules = RULES.get()
    return rules.now if rules else None


def within_limits(amount: int) -> int:
    """Return an amount that the settings allow. Raises ValueError."""
    rules = RULES.get()
    least = rules.runtime.settings.min_payment_amount if rules else 1
    most = rules.runtime.settings.max_payment_amount if rules else INT64_MAX
    if not least <= amount <= most:
        raise ValueError(f"must be between {least} and {most} minor units")
    return amount


def within_delay(delay_ms: int) -> int:
    """Return a steered delay, in milliseconds, for which a claim holds. Raises ValueError."""
    rules = RULES.get()
    most = rules.runtime.settings.steered_delay_max_ms if rules else INT64_MAX
    if delay_ms > most:
        raise ValueError(f"must be between 0 and {most} milliseconds")
    return delay_ms


def known_to_order_service(order_id: str) -> str:
    """Return an order id that the order service can have, if there is one. Raises ValueError."""
    rules = RULES.get()
    if rules and rules.runtime.settings.order_service_url and not is_order_number(order_id):
        raise ValueError("must be a positive integer: the order service numbers its orders")
    return order_id


def known_if_ready_made(name: str) -> str:
    """Return the id of a payment method, or the name of a ready-made one. Raises the error of an unknown name.

    Where SIMULATION is off, every name is returned: the operation refuses it.
    """
    if name.startswith(NAME_PREFIX) and name not in READY_MADE:
        rules = RULES.get()
        if rules and rules.runtime.settings.is_simulation_on:
            raise refusal(Code.PAYMENT_METHOD_UNUSABLE, UNUSABLE_METHOD, NO_SUCH_NAME)
    return name


def receiver_url(url: str) -> str:
    """Return a URL that webhooks of the client may be sent to, as far as its text shows. Raises the error of another.

    Raises LookupError without rules.
    """
    rules = RULES.get()
    if rules is None:
        raise LookupError("a URL was validated outside of an operation")
    runtime = rules.runtime
    policy = runtime.user_address_policy if rules.is_user else runtime.address_policy
    try:
        check_callback_url(url, policy, allows_http=runtime.settings.allows_http_webhooks)
    except UrlRefused as error:
        raise refusal(Code.CALLBACK_URL_REFUSED, str(error)) from None
    return url


def usable_return_url(url: str) -> str:
    """Return a URL that customers may return to, where links for customers can be made. Raises ValueError."""
    rules = RULES.get()
    if rules and rules.runtime.settings.link_base is None:
        raise ValueError(NO_LINKS)
    try:
        check_return_url(url)
    except UrlRefused as error:
        raise ValueError(str(error)) from None
    return url
