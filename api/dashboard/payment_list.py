"""The list of payments: its filters, and its pages by cursor."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi.responses import Response

from api.dashboard.forms import digits, wrong
from api.dashboard.json_api import Refused
from api.dashboard.visitors import PageRoute, SignedIn, Visitor
from api.paths import DASHBOARD
from shared.lifecycle import FailureCode, MethodType, PaymentStatus

router = APIRouter(prefix=f"{DASHBOARD}/payments", route_class=PageRoute, include_in_schema=False)

ROWS = 25
# What the JSON API filters by, and what is looked for in what it returns.
ASKED = ("status", "order_id", "user_id", "created_after", "created_before")
LOOKED_FOR = ("transaction", "method", "outcome", "amount_min", "amount_max")
# Of payments that must be looked through, so many are read for one page.
LOOKED_THROUGH, PAGE_LIMIT = 1000, 100

DIGITS_MAX = 18
# The zone at the end of a moment: Z, or an offset.
ZONE = re.compile(r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})$")

type Test = Callable[[Mapping[str, Any]], bool]


@router.get("")
async def get_payments(visitor: SignedIn) -> Response:
    """Show payments, the newest first, with filters; the first page is live."""
    query = {name: value.strip() for name, value in visitor.request.query_params.items() if value.strip()}
    filters = {name: query[name] for name in (*ASKED, *LOOKED_FOR) if name in query}
    shown: dict[str, Any] = {"payments": [], "next": None, "looked_through": 0}
    refused: Refused | None = None
    try:
        shown |= await find_payments(visitor, filters, query.get("cursor"))
    except Refused as error:
        refused = error
    next_cursor = shown.pop("next")
    shown |= {
        "filters": {name: filters.get(name, "") for name in (*ASKED, *LOOKED_FOR)},
        "is_filtered": bool(filters),
        "statuses": list(PaymentStatus),
        "methods": list(MethodType),
        "outcomes": list(FailureCode),
        # How many payments the simulator has made.
        "made": visitor.done,
        "first": f"?{urlencode(filters)}" if "cursor" in query else None,
        "next": f"?{urlencode({**filters, 'cursor': next_cursor})}" if next_cursor else None,
        "is_live": "cursor" not in query and not refused and not shown["looked_through"],
    }
    return visitor.page("payments.html", shown, refused=refused)


async def find_payments(visitor: Visitor, filters: Mapping[str, str], cursor: str | None = None) -> dict[str, Any]:
    """Return the payments of a page, the cursor of the next one, and how many had to be looked through.

    The database has no index by which it could find the rest, so a page of what is looked for may be short. Raises
    Refused, also for a wrong amount.
    """
    asked = {name: _asked(name, value) for name, value in filters.items() if name in ASKED}
    tests = _tests(filters)
    found: list[dict[str, Any]] = []
    looked_through = 0
    while True:
        limit = PAGE_LIMIT if tests else ROWS
        query = {**asked, "limit": limit, **({"cursor": cursor} if cursor else {})}
        page = await visitor.json.get("/payments", query)
        looked_through += len(page["payments"])
        found += [payment for payment in page["payments"] if all(test(payment) for test in tests)]
        cursor = page["next_cursor"]
        if cursor is None or not tests or len(found) >= ROWS or looked_through >= LOOKED_THROUGH:
            return {"payments": found, "next": cursor, "looked_through": looked_through if tests else 0}


def _asked(name: str, value: str) -> str:
    """Return a filter as the JSON API takes it. What a form says without a zone is UTC."""
    has_no_zone = name.startswith("created") and ZONE.search(value) is None
    return f"{value}Z" if has_no_zone else value


def _tests(filters: Mapping[str, str]) -> list[Test]:
    """Return what a payment must meet beyond what the JSON API filters by. Raises Refused (422) for a wrong amount."""
    tests: list[Test] = []
    if transaction := filters.get("transaction"):
        tests.append(lambda payment: payment["gateway_transaction_id"] == transaction)
    if method := filters.get("method"):
        tests.append(lambda payment: payment["payment_method_details"]["type"] == method)
    if outcome := filters.get("outcome"):
        tests.append(lambda payment: payment["failure_code"] == outcome)
    if "amount_min" in filters:
        least = _minor_units(filters["amount_min"])
        tests.append(lambda payment: payment["amount"] >= least)
    if "amount_max" in filters:
        most = _minor_units(filters["amount_max"])
        tests.append(lambda payment: payment["amount"] <= most)
    return tests


def _minor_units(text: str) -> int:
    amount = digits(text, digits_max=DIGITS_MAX)
    if amount is None:
        raise wrong("The amounts must be whole numbers of minor units, such as 1585 for 15.85 USD.")
    return amount
