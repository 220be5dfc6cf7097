"""Each way to a certain outcome of a capture, void or refund that the testing guide names leads there."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from shared.config.settings import Settings, load_settings
from tests.support.processes import PaymentsProcess, Shop, processes
from tests.support.receivers import receiver
from tests.support.servers import free_port
from tests.support.waiting import eventually
from tests.test_guides import TESTING

WAITING = {"Prefer": "wait=10"}
DAYS, PENDING_MS = 7, 5000


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Settings]:
    """The service with the settings of the guide."""
    settings = load_settings(
        port=free_port(),
        database_url=f"sqlite:///{tmp_path}/payments.db",
        payment_processing_delay_min=0,
        payment_processing_delay_max=0,
        payment_success_rate=1,
    )
    up = PaymentsProcess("up", tmp_path / "up", settings)
    with processes(up):
        await up.ready()
        yield settings


async def paid(shop: Shop, method: str = "pm_test_visa", **changes: Any) -> dict[str, Any]:
    answer = await shop.pay(payment_method_id=method, headers=WAITING, **changes)
    assert answer.status_code == 201, answer.text
    payment: dict[str, Any] = answer.json()
    return payment


async def test_captures_and_voids_end_as_the_guide_says(service: Settings) -> None:
    async with Shop(service, user="shop", role="service") as shop:
        captured = await paid(shop, capture_method="manual")
        assert captured["status"] == "AUTHORIZED"
        answer = await shop.http.post(f"/payments/{captured['id']}/capture", headers=WAITING)
        assert (answer.status_code, answer.json()["status"]) == (200, "COMPLETED")
        voided = await paid(shop, capture_method="manual")
        answer = await shop.http.post(f"/payments/{voided['id']}/cancel")
        assert answer.status_code == 202
        answer = await shop.http.get(f"/payments/{voided['id']}", headers=WAITING)
        assert answer.json()["status"] == "CANCELLED"
        left = await paid(shop, capture_method="manual")
        async with Shop(service, user="operator", role="admin") as operator:
            answer = await operator.http.post("/simulation/clock/advance", json={"seconds": DAYS * 24 * 3600})
            assert answer.status_code == 200, answer.text

        async def has_expired() -> bool:
            return bool((await shop.payment(left["id"]))["status"] == "CANCELLED")

        await eventually(has_expired, 20)
        history = (await shop.http.get(f"/payments/{left['id']}/history")).json()["history"]
        assert [move["reason"] for move in history][-2:] == ["authorization_expired", "voided"]
    assert f"clock advance {DAYS}d" in TESTING


async def test_what_waits_before_a_worker_takes_it_up_is_cancelled_as_the_guide_says(service: Settings) -> None:
    waiting = {"simulation": {"pending_ms": PENDING_MS}}
    async with Shop(service, user="shop", role="service") as shop:
        payment_id = await shop.accepted(payment_method_id="pm_test_visa", **waiting)
        answer = await shop.http.post(f"/payments/{payment_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "CANCELLED")
        good = await paid(shop)
        refund = (await shop.http.post(f"/payments/{good['id']}/refunds", json=waiting)).json()
        answer = await shop.http.post(f"/refunds/{refund['id']}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "CANCELLED")
    assert f'"pending_ms": {PENDING_MS}' in TESTING


async def test_refunds_end_as_the_guide_says(service: Settings) -> None:
    async with Shop(service, user="shop", role="service") as shop, receiver() as receiving:
        good = await paid(shop, callback_url=receiving.url)
        answer = await shop.http.post(f"/payments/{good['id']}/refunds", headers=WAITING)
        assert (answer.status_code, answer.json()["status"]) == (201, "COMPLETED")
        declined = await paid(shop, "pm_test_refund_declined")
        answer = await shop.http.post(f"/payments/{declined['id']}/refunds", headers=WAITING)
        assert (answer.json()["status"], answer.json()["failure_code"]) == ("FAILED", "refund_declined")
        assert (await shop.payment(declined["id"]))["amount_refundable"] == declined["amount"]
        slow = await paid(shop, "pm_test_refund_slow")
        refund = (await shop.http.post(f"/payments/{slow['id']}/refunds")).json()

        async def is_in_progress() -> bool:
            return bool((await shop.http.get(f"/refunds/{refund['id']}")).json()["status"] == "PROCESSING")

        await eventually(is_in_progress)
        again = await shop.http.post(f"/payments/{slow['id']}/refunds", json={"amount": 1})
        cancel = await shop.http.post(f"/refunds/{refund['id']}/cancel")
        assert [(one.status_code, one.json()["code"]) for one in (again, cancel)] == [
            (409, "refund_exceeds_balance"), (409, "refund_not_cancellable"),
        ]  # fmt: skip
        types = {"payment.completed", "payment.refunded", "refund.created", "refund.completed"}
        await eventually(lambda: {request.event["type"] for request in receiving.requests} == types)
