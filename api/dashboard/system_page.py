"""The system: what this process reaches, the workers, the settings in force without secrets, the last verification.

Admins ask a worker for a verification here.
"""

import asyncio
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import SecretStr

from api.dashboard.json_api import Refused
from api.dashboard.visitors import PageRoute, SignedIn, Visitor
from api.paths import DASHBOARD
from api.state import Api
from shared.config.settings import GROUPS, Settings

router = APIRouter(prefix=DASHBOARD, route_class=PageRoute, include_in_schema=False)

# URLs that may have a password anywhere.
HIDDEN = frozenset({"database_url", "redis_url"})
CHECKS = {
    "database": "Database",
    "redis": "Redis",
    "auth_service": "Auth service",
    "order_service": "Order service",
}


# What a run of a verification is, while it is not over.
UNDER_WAY = frozenset({"waiting", "running"})


@router.get("/system")
async def get_system(visitor: SignedIn) -> Response:
    """Show admins how the installation is set up, and how it is."""
    return await system_page(visitor)


@router.post("/system/verify")
async def ask_for_verification(visitor: SignedIn) -> Response:
    """Ask a worker to verify, and lead to where its progress is seen."""
    await visitor.form()
    try:
        await visitor.json.post("/verify/run")
    except Refused as refused:
        return await system_page(visitor, refused=refused)
    return visitor.lead_to("/system", part="verify")


async def system_page(visitor: Visitor, *, refused: Refused | None = None) -> Response:
    """Return the page, with the reason if a form was refused. Raises Problem (403) for who is no admin."""
    visitor.require_admin()
    api = visitor.api
    stats, report, run = await asyncio.gather(
        visitor.json.ask("GET", "/stats"), visitor.json.find("/verify/last"), visitor.json.ask("GET", "/verify/run")
    )
    shown = {
        "checks": await _checks(api),
        "workers": stats.content.get("workers") if stats.is_done else None,
        "uptime_s": api.uptime_s(),
        "database": api.runtime.settings.database_name,
        "report": report,
        # Without Redis nobody knows of a run, and the page is shown all the same.
        "run": run.content if run.is_done else None,
        "is_verifying": run.is_done and run.content["status"] in UNDER_WAY,
        "groups": [_group(group, api.runtime.settings) for group in GROUPS],
        "is_live": True,
    }
    return visitor.page("system.html", shown, refused=refused)


async def _checks(api: Api) -> list[tuple[str, str, str]]:
    """Return each service that this process needs, with its tone and a word."""
    database, redis, upstreams = await asyncio.gather(
        api.database_health.get(), api.runtime.broker.probe(), api.readiness.are_healthy()
    )
    found: dict[str, bool | None] = {"database": database, "redis": redis, **upstreams}
    words = {True: ("good", "ready"), False: ("bad", "not ready"), None: ("off", "not configured")}
    return [(CHECKS[name], *words[is_healthy]) for name, is_healthy in found.items()]


def _group(group: type, settings: Settings) -> tuple[str, list[tuple[str, str, bool]]]:
    """Return the title of a group of settings, and of each its name, its value and whether it is the default."""
    title = (group.__doc__ or "").strip().removesuffix(".")
    fields = group.model_fields  # type: ignore[attr-defined]
    return title, [
        (name.upper(), shown_value(name, getattr(settings, name)), name not in settings.model_fields_set)
        for name in fields
    ]


def shown_value(name: str, value: Any) -> str:
    """Return the value of a setting for the eyes of an admin. A secret is only said to be set."""
    if value is None or value == ():
        return "not set"
    if isinstance(value, SecretStr) or name in HIDDEN:
        return "set, hidden"
    if isinstance(value, tuple):
        return ", ".join(shown_value(name, one) for one in value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    # No URL of ours may have credentials; if one has, they are hidden.
    return text.replace(f"{urlsplit(text).netloc.rpartition('@')[0]}@", "") if "://" in text and "@" in text else text
