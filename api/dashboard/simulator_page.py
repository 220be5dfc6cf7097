"""The simulator: the test values, and a form that makes payments for those who have no client yet."""

import asyncio
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from api.dashboard.forms import digits, minor_units, next_key, wrong
from api.dashboard.json_api import Refused
from api.dashboard.sessions import new_secret
from api.dashboard.visitors import PageRoute, SignedIn, Visitor
from api.paths import DASHBOARD
from shared.lifecycle import CaptureMethod, MethodType
from shared.money import EXPONENTS
from shared.simulation.calls import CallOperation, outcomes_of
from shared.simulation.presets import Preset

router = APIRouter(prefix=DASHBOARD, route_class=PageRoute, include_in_schema=False)

COUNT_MAX = 100
# Requests at once: enough to share a commit, and few enough to leave room for others.
AT_ONCE = 25
DEFAULTS = {"method": "pm_test_visa", "amount": "15.85", "currency": "USD", "count": "1", "capture": "automatic"}
# The methods that may have any outcome come first, then those that always succeed, then the rest.
ORDER = ("random", "succeeds", "fails")
RULES_SHOWN_MAX = 100
OUTCOMES = tuple(dict.fromkeys(word for operation in CallOperation for word in outcomes_of(operation)))
DONE = {
    "created": "The rule holds. Within a second every worker applies it.",
    "preset": "The rules of the preset hold. Within a second every worker applies them.",
    "again": "This form was sent before. The list below has what it created then.",
    "advanced": "The clock was advanced, and what was due is done.",
    "advancing": "The clock is being advanced. Load the page again to see how far it is.",
    "deleted": "The rule is deleted. Within a second no worker applies it any more.",
    "all-deleted": "All rules are deleted. Within a second no worker applies them any more.",
}
WRONG_COUNT = f"The number of payments must be between 1 and {COUNT_MAX}."


@router.get("/simulator")
async def get_simulator(visitor: SignedIn) -> Response:
    """Show what can be simulated, and the form that makes payments."""
    given = {name: visitor.request.query_params.get(name, default) for name, default in DEFAULTS.items()}
    return await simulator_page(visitor, given)


@router.post("/simulator")
async def make_payments(visitor: SignedIn) -> Response:
    """Make payments as the form says: all alike, each for an order of its own."""
    form = await visitor.form()
    given = {name: form.get(name, "") for name in DEFAULTS}
    try:
        return await _make(visitor, given, form.get("key", ""))
    except Refused as refused:
        return await simulator_page(visitor, given, refused=refused, sent_key=form.get("key", ""))


async def _make(visitor: Visitor, given: dict[str, str], key: str) -> Response:
    count = digits(given["count"].strip())
    if count is None or not 1 <= count <= COUNT_MAX:
        raise wrong(WRONG_COUNT)
    body: dict[str, Any] = {
        "amount": minor_units(given["amount"].strip(), given["currency"]),
        "currency": given["currency"],
        "payment_method_id": given["method"],
        "capture_method": given["capture"],
        "description": "Made in the dashboard",
    }
    base = visitor.api.runtime.settings.link_base
    if base is not None:
        # A customer who has approved comes back to the list.
        body["return_url"] = f"{base}{DASHBOARD}/payments"
    start = f"sim-{key[:10]}" if key.isascii() and len(key) >= len(new_secret()) else f"sim-{new_secret()[:10]}"
    turns = asyncio.Semaphore(AT_ONCE)

    async def make(number: int) -> dict[str, Any]:
        async with turns:
            order_id = f"{start}-{number}"
            return await visitor.json.post("/payments", {**body, "order_id": order_id}, key=f"{start}-{number}")

    made = await asyncio.gather(*(make(number) for number in range(1, count + 1)), return_exceptions=True)
    refusals = [one for one in made if isinstance(one, BaseException)]
    accepted = [one for one in made if not isinstance(one, BaseException)]
    if refusals and isinstance(refusals[0], Refused) and accepted:
        first_refused = refusals[0]
        raise first_refused.saying(f"{first_refused.sentence} {len(accepted)} of {count} payments were accepted.")
    if refusals:
        raise refusals[0]
    [first, *others] = accepted
    if others:
        return visitor.lead_to("/payments", done=str(count))
    return visitor.lead_to(f"/payments/{first['id']}", done="made")


async def simulator_page(
    visitor: Visitor, given: dict[str, str] | None = None, *, refused: Refused | None = None, sent_key: str = ""
) -> Response:
    """Return the page, with what was given to the form that makes payments, and with what was done or refused."""
    methods = await visitor.json.find("/test-methods")
    # Only admins have rules.
    rules = await visitor.json.find("/simulation/rules", {"limit": RULES_SHOWN_MAX})
    shown = {
        "methods": sorted(methods["test_methods"], key=lambda one: ORDER.index(one["outcome"])) if methods else None,
        "currencies": sorted(EXPONENTS),
        "captures": list(CaptureMethod),
        "given": given or DEFAULTS,
        "count_max": COUNT_MAX,
        "rules": rules["rules"] if rules else None,
        "clock": await visitor.json.find("/simulation/clock"),
        "presets": list(Preset),
        "operations": list(CallOperation),
        "outcomes": OUTCOMES,
        "method_types": list(MethodType),
        "key": next_key(refused, sent_key),
        "done": DONE.get(visitor.done),
    }
    return visitor.page("simulator.html", shown, refused=refused)
