"""What is unwell: services that do not answer, receivers that fail, workers that are missing, breaches."""

import asyncio
from typing import Any

from api.single_flight import CachedCall
from api.state import Api
from shared.errors import PaymentsError
from shared.verify.reports import last_report
from shared.webhooks.failing import FailingReceiver, failing_receivers

# Seconds for which the answer is kept.
FRESH_FOR_S = 5.0
RECEIVERS_SHOWN_MAX = 5
UPSTREAMS = {"auth_service": "The auth service", "order_service": "The order service"}


class Unwell:
    """Finds what is unwell, at most every five seconds, for all who want to know."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._found = CachedCall(self._find, ttl_s=FRESH_FOR_S)

    async def current(self) -> list[dict[str, Any]]:
        """Return what is unwell, the worst first: a `tone`, a sentence, and the path of the page with more."""
        return await self._found.get()

    async def _find(self) -> list[dict[str, Any]]:
        api = self._api
        database, redis, upstreams = await asyncio.gather(
            api.database_health.get(), api.runtime.broker.probe(), api.readiness.are_healthy()
        )
        found: list[dict[str, Any]] = []
        if not database:
            found.append(_entry("bad", "The database cannot be used: no payment is accepted.", "/system"))
        if not redis:
            found.append(_entry("bad", "Redis takes no jobs: workers find payments a little later.", "/system"))
        found += [
            _entry("bad", f"{UPSTREAMS[name]} does not answer.", "/system")
            for name, is_healthy in upstreams.items()
            if is_healthy is False
        ]
        return found + (await self._found_in_database() if database else [])

    async def _found_in_database(self) -> list[dict[str, Any]]:
        try:
            async with self._api.runtime.database.read() as connection:
                receivers = await failing_receivers(connection, limit=RECEIVERS_SHOWN_MAX)
                report = await last_report(connection)
        except PaymentsError:
            # Safe: the next look is five seconds away, and the overview says what the database does.
            return []
        found = [_entry("ask", _sentence(receiver), _page(receiver)) for receiver in receivers]
        if report is not None and report["breaches_total"]:
            text = f"`payments verify` found {report['breaches_total']} breaches."
            found.insert(0, _entry("bad", text, "/system#verify"))
        return found


def _entry(tone: str, text: str, page: str) -> dict[str, Any]:
    return {"tone": tone, "text": text, "page": page}


def _sentence(receiver: FailingReceiver) -> str:
    noun = "delivery fails" if receiver.waiting == 1 else "deliveries fail"
    match receiver.endpoint_name, receiver.kind:
        case (None, "order"):
            return f"{receiver.waiting} {noun} at the order service."
        case (None, _):
            return f"{receiver.waiting} {noun} at callback URLs."
        case (name, _):
            return f"{receiver.waiting} {noun} at the endpoint {name}."


def _page(receiver: FailingReceiver) -> str:
    return f"/webhooks/{receiver.endpoint_id}" if receiver.endpoint_id else "/webhooks"
