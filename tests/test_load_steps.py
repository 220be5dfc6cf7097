"""The load captures and refunds as its intents say, and asks again after a lost answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from cli.load.checks import LoadVerdict
from cli.load.client import Unusable, open_api
from cli.load.later_checks import judge_captures_and_refunds
from cli.load.later_steps import LaterSteps
from cli.load.later_tally import LaterTally
from cli.load.plan import Intent, RefundPlan
from shared.lifecycle import MethodType
from shared.refund_lifecycle import RefundStatus


def an_intent(*, refund: RefundPlan | None = None, is_captured: bool = False) -> Intent:
    return Intent(2, 0.0, MethodType.CREDIT_CARD, 1000, is_captured, refund)


@dataclass
class Shop:
    """Just enough of the API for one payment of 1000, with faults."""

    status: str = "COMPLETED"
    captured: int = 1000
    # The first answers to POST: such statuses, or None for a connection that breaks after the work is done.
    faults: list[int | None] = field(default_factory=list)
    is_forbidden: bool = False
    capture_error: dict[str, str] | None = None
    does_not_check: bool = False
    is_refunding_for_ever: bool = False
    refunds: dict[str, dict[str, Any]] = field(default_factory=dict)  # by key
    posts: list[tuple[str, str]] = field(default_factory=list)

    @property
    def refunded(self) -> int:
        return sum(refund["amount"] for refund in self.refunds.values())

    def shown(self) -> dict[str, Any]:
        status = self.status
        if self.refunds and not self.is_refunding_for_ever:
            status = "REFUNDED" if self.refunded == self.captured else "PARTIALLY_REFUNDED"
        return {
            "id": "p1",
            "status": status,
            "amount_authorized": 1000,
            "amount_captured": self.captured,
            "amount_refunded": self.refunded,
            "amount_refundable": self.captured - self.refunded,
            "last_capture_error": self.capture_error,
        }

    async def get(self, _request: web.Request) -> web.Response:
        return web.json_response(self.shown())

    async def post(self, request: web.Request) -> web.StreamResponse:
        step, key = request.match_info["step"], request.headers["Idempotency-Key"]
        self.posts.append((step, key))
        if self.is_forbidden:
            return web.json_response({"code": "forbidden"}, status=403)
        fault = self.faults.pop(0) if self.faults else 0
        if fault:
            return web.json_response({"code": "overloaded"}, status=fault)
        answer = self._do(step, key, await request.json() if request.can_read_body else {})
        if fault is None:
            assert request.transport is not None
            request.transport.abort()
        return answer

    def _do(self, step: str, key: str, content: dict[str, Any]) -> web.Response:
        if step == "cancel":
            self.status = "CANCELLED"
        if step == "capture" and self.capture_error is None:
            self.status, self.captured = "COMPLETED", content["amount"]
        if step != "refunds":
            return web.json_response(self.shown(), status=202)
        if key not in self.refunds:
            if self.refunded + content["amount"] > self.captured and not self.does_not_check:
                return web.json_response({"code": "refund_exceeds_balance"}, status=409)
            status = "PROCESSING" if self.is_refunding_for_ever else "COMPLETED"
            self.refunds[key] = {"id": f"r{len(self.refunds)}", "amount": content["amount"], "status": status}
        return web.json_response(self.refunds[key], status=202)

    async def get_refund(self, request: web.Request) -> web.Response:
        (found,) = (refund for refund in self.refunds.values() if refund["id"] == request.match_info["id"])
        return web.json_response(found)


@asynccontextmanager
async def shop_url(shop: Shop) -> AsyncIterator[str]:
    application = web.Application()
    application.add_routes(
        [
            web.get("/api/v1/payments/p1", shop.get),
            web.post("/api/v1/payments/p1/{step}", shop.post),
            web.get("/api/v1/refunds/{id}", shop.get_refund),
        ]
    )
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def verdict_about(tally: LaterTally) -> LoadVerdict:
    verdict = LoadVerdict()
    judge_captures_and_refunds(tally, verdict)
    return verdict


async def followed(shop: Shop, intent: Intent) -> tuple[LaterTally, list[dict[str, Any]]]:
    """Return what is known after the steps of this intent, and the payments that were seen."""
    tally, seen = LaterTally(), list[dict[str, Any]]()
    async with shop_url(shop) as url, open_api(url, connections_max=10) as api, asyncio.TaskGroup() as group:
        steps = LaterSteps(api, "t", tally, see=seen.append)
        steps.start(group)
        steps.begin(intent, "p1")
        await steps.finish(stalled_max_s=1)
    return tally, seen


async def test_a_plain_intent_is_not_followed() -> None:
    tally, seen = await followed(Shop(), an_intent())
    assert (tally.payments, seen) == ([], [])


async def test_an_authorized_payment_is_captured_and_refunded_as_its_intent_says() -> None:
    shop = Shop("AUTHORIZED", captured=0)
    tally, seen = await followed(shop, an_intent(is_captured=True, refund=RefundPlan.WHOLE))
    assert [step for step, _key in shop.posts] == ["capture", "refunds"]
    (payment,) = tally.payments
    assert (payment.capture, payment.amount_of(RefundStatus.COMPLETED)) == (750, 750)
    assert payment.is_finished
    assert [one["status"] for one in seen] == ["AUTHORIZED", "COMPLETED", "REFUNDED"]
    assert (tally.captures, tally.refunds_ended) == (1, 1)
    assert verdict_about(tally).is_clean


async def test_of_two_refunds_that_are_too_much_together_one_is_refused() -> None:
    tally, _seen = await followed(Shop(), an_intent(refund=RefundPlan.TOO_MUCH))
    assert tally.refused == {"refund: 409 refund_exceeds_balance": 1}
    assert tally.refund_ends == {RefundStatus.COMPLETED: 1}
    assert verdict_about(tally).is_clean


async def test_a_service_that_accepts_both_is_caught() -> None:
    tally, _seen = await followed(Shop(does_not_check=True), an_intent(refund=RefundPlan.TOO_MUCH))
    assert "More was refunded than was captured." in [broken.words for broken in verdict_about(tally).broken]


@pytest.mark.parametrize("fault", [None, 429, 502, 503])
async def test_a_lost_or_busy_answer_is_asked_for_again_with_the_same_key(fault: int | None) -> None:
    shop = Shop(faults=[fault])
    tally, _seen = await followed(shop, an_intent(refund=RefundPlan.PART))
    assert len(shop.posts) == 2
    assert len(set(shop.posts)) == len(shop.refunds) == 1
    assert tally.refund_ends == {RefundStatus.COMPLETED: 1}


async def test_a_payment_whose_capture_failed_is_cancelled() -> None:
    shop = Shop("AUTHORIZED", captured=0, capture_error={"code": "capture_declined"})
    tally, seen = await followed(shop, an_intent(is_captured=True, refund=RefundPlan.WHOLE))
    assert [step for step, _key in shop.posts] == ["capture", "cancel"]
    assert seen[-1]["status"] == "CANCELLED"
    assert verdict_about(tally).is_clean


async def test_a_token_that_may_not_refund_ends_the_load() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await followed(Shop(is_forbidden=True), an_intent(refund=RefundPlan.WHOLE))
    assert raised.group_contains(Unusable, match="service or admin")


async def test_a_refund_that_never_ends_is_given_up() -> None:
    tally, _seen = await followed(Shop(is_refunding_for_ever=True), an_intent(refund=RefundPlan.WHOLE))
    assert not tally.payments[0].is_finished
    assert [broken.words for broken in verdict_about(tally).broken] == ["A refund was accepted and never ended."]
