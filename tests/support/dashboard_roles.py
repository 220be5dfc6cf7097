"""Visitors of the dashboard of every role, what they may do something with, and a text that is no markup there."""

from typing import Any

import httpx

from tests.support.api_client import RunningApi, accepted, added, order
from tests.support.approvals import waiting
from tests.support.dashboards import bearer, signed_in
from tests.support.money import AUTHORIZED
from tests.support.settling import APPROVED, settled

MARKUP = "</td></pre></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;{{ 7 * 7 }}"
ROLES = {"admin": ("admin", "root"), "service": ("service", "shop"), "user": (None, "1"), "other": (None, "2")}


async def visitor(running_api: RunningApi, who: str) -> httpx.AsyncClient:
    role, name = ROLES[who]
    return await signed_in(running_api, bearer(running_api, role, name))


async def a_payment(running_api: RunningApi, user: httpx.AsyncClient, action: str) -> dict[str, Any]:
    """A payment of user 1 with which this can be done."""
    if action == "answer":
        return await waiting(user, running_api.database)
    captured = {"capture_method": "manual"} if action == "capture" else {}
    payment = await accepted(user, order(await added(user), **captured))
    if action in {"capture", "refund"}:
        await settled(running_api.database, payment["id"], AUTHORIZED if action == "capture" else APPROVED)
    return payment
