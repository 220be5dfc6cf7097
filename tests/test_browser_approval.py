"""The approval pages in a real Chromium: a customer approves, declines, presses twice, goes back and returns."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.async_api import Browser, Page, Request

from api.approval.pages import ADVICE, RESULTS, State
from api.problems import Code
from shared.config.settings import Settings
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, added, card, paypal, served
from tests.support.approvals import row, waiting
from tests.support.browsers import OVERFLOW, SIZES, opened_browser, picture
from tests.support.receivers import Receiver

pytestmark = [pytest.mark.browser, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]
pytest_plugins = ["tests.support.delivery_fixtures"]

APPROVE, DECLINE = "Approve the payment", "Decline"


@dataclass
class Shop:
    """A customer's browser, the API, and the shop to which the customer returns: another origin."""

    page: Page
    api: RunningApi
    return_url: str
    seen: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    async def waiting(self, **changes: Any) -> dict[str, Any]:
        """A payment that waits for this customer; its link leads to the server that runs."""
        user = self.api.user()
        payment = await waiting(user, self.api.database, **{"return_url": self.return_url, **changes})
        payment["next_action"]["url"] = self.api.url + urlsplit(payment["next_action"]["url"]).path
        return payment

    async def press(self, name: str) -> None:
        await self.page.get_by_role("button", name=name).click()

    async def heading(self) -> str:
        return await self.page.get_by_role("heading", level=1).inner_text()
