"""All pages of the dashboard, and what they share in one process."""

from fastapi import APIRouter

from api.dashboard import (
    entry,
    find_page,
    overview_page,
    payment_actions,
    payment_list,
    payment_page,
    simulator_clock,
    simulator_page,
    simulator_rules,
    system_page,
    webhook_pages,
)
from api.dashboard.overview import Overview
from api.dashboard.sessions import Sessions
from api.dashboard.stream import Broadcast
from api.dashboard.visitors import Dashboard
from api.state import Api

router = APIRouter()
for module in (
    entry,
    overview_page,
    find_page,
    payment_list,
    payment_page,
    payment_actions,
    webhook_pages,
    simulator_clock,
    simulator_page,
    simulator_rules,
    system_page,
):
    router.include_router(module.router)


def open_dashboard(api: Api) -> Dashboard:
    """Return what the pages of this process share. Nothing runs until somebody watches."""
    overview = Overview(api)
    return Dashboard(
        Sessions(api.runtime.broker, api.runtime.keyring, api.authenticator, api.api_keys),
        Broadcast(overview.compute, overview.before),
    )
