"""The whole service in one process, over real HTTP, with a real receiver of webhooks, on both databases."""

import asyncio
from uuid import UUID

from tests.support.pipelines import MakeSettings, running
from tests.support.receivers import receiver
from tests.support.rows import are_settled, assert_sound, ledger_entries, read_all
from tests.support.waiting import eventually


async def test_a_payment_goes_all_the_way_from_the_intent_to_a_signed_webhook(make_settings: MakeSettings) -> None:
    async with running(make_settings(payment_success_rate=1)) as service, receiver() as shop_server:
        answer = await service.shop.pay(
            callback_url=shop_server.url, headers={"Prefer": "wait=20", "X-Correlation-ID": "order-4711"}
        )
        assert answer.status_code == 201, answer.text
        payment = answer.json()
        assert (payment["status"], payment["sequence"]) == ("COMPLETED", 3)
        await eventually(lambda: shop_server.requests)
        [request] = shop_server.requests
        secret = (await service.shop.http.get("/callback-secret")).json()["secret"]
        event = request.verified(secret)
        assert event["type"] == "payment.completed"
        assert event["data"]["payment"] == payment
        assert {name.lower(): value for name, value in request.headers.items()}["x-correlation-id"] == "order-4711"
        history = (await service.shop.http.get(f"/payments/{payment['id']}/history")).json()["history"]
        assert [move["reason"] for move in history] == ["accepted", "claimed", "gateway_approved"]

        async def is_delivered() -> bool:
            shown = (await service.shop.http.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
            return bool([delivery["status"] for delivery in shown] == ["delivered"])

        await eventually(is_delivered)
        assert await ledger_entries(service.database, UUID(payment["id"])) == ["authorize", "capture"]


async def test_a_declined_card_fails_and_the_order_can_be_paid_with_another(make_settings: MakeSettings) -> None:
    async with running(make_settings(payment_success_rate=1)) as service:
        good = service.shop.method_id
        await service.shop.add_card("4000000000009995")
        wait = {"Prefer": "wait=20"}
        declined = await service.shop.pay(order_id="7", headers=wait)
        assert (declined.status_code, declined.json()["failure_code"]) == (201, "insufficient_funds")
        paid = await service.shop.pay(order_id="7", payment_method_id=good, headers=wait)
        assert paid.json()["status"] == "COMPLETED"
        await assert_sound(service.database)


async def test_many_payments_of_every_kind_end_and_the_ledger_agrees(make_settings: MakeSettings) -> None:
    async with running(make_settings(payment_success_rate=0.6)) as service:
        debit = await service.shop.add_card("4000056655665556", "DEBIT_CARD")
        methods = [service.shop.method_id, debit]
        await asyncio.gather(*(service.shop.accepted(payment_method_id=methods[i % 2]) for i in range(80)))
        await eventually(lambda: are_settled(service.database, 80), timeout_s=60)
        await assert_sound(service.database)
        found = await read_all(service.database)
        assert {payment.status.value for payment in found} == {"COMPLETED", "FAILED"}
        assert "network_error" in {payment.failure_code for payment in found}  # also after its retries
