"""Late answers from end to end: the gateway notifies the API, and a worker asks at once and not half a minute later."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared.config.settings import Settings
from shared.simulation.delays import CHARGE_SETTLES_MAX_S, CHARGE_SETTLES_MIN_S, REFUND_SETTLES_S
from tests.support.processes import PaymentsProcess, Shop, processes
from tests.support.servers import free_port
from tests.support.waiting import eventually
from worker.rules import POLL_AFTER_S

type MakeSettings = Callable[..., Settings]

# Idempotency keys of user 1 for which the gateway draws little more than the shortest time, with the tests' seed.
SOON = ("late-11", "late-127")
ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


async def pending_payment(shop: Shop, email: str, key: str) -> str:
    answer = await shop.http.post("/payment-methods", json={"type": "PAYPAL", "payment_details": {"email": email}})
    return await shop.accepted(payment_method_id=answer.json()["id"], headers={"Idempotency-Key": key})


async def reasons(shop: Shop, path: str) -> list[str]:
    return [entry["reason"] for entry in (await shop.http.get(f"{path}/history")).json()["history"]]


async def results(settings: Settings, name: str) -> dict[str, float]:
    """How many notifications ended how."""
    async with Shop(settings) as anybody:
        text = (await anybody.http.get(f"http://127.0.0.1:{settings.port}/metrics")).text
    [family] = [each for each in text_string_to_metric_families(text) if f"{each.name}_total" == name]
    return {each.labels["result"]: each.value for each in family.samples if each.name == name}


@ON_SQLITE
async def test_payments_up_notifies_itself_and_asks_the_gateway_once(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(rate_limit_address="1000/minute")
    up = PaymentsProcess("up", tmp_path / "up", settings)
    with processes(up):
        await up.ready()
        began = monotonic()
        async with Shop(settings) as shop:
            paid = await pending_payment(shop, "pending@paypal.test", SOON[0])
            declined = await pending_payment(shop, "pending-declined@paypal.test", SOON[1])
            await ended(shop, paid, "COMPLETED")
            await ended(shop, declined, "FAILED")
            assert CHARGE_SETTLES_MIN_S < monotonic() - began < CHARGE_SETTLES_MAX_S < POLL_AFTER_S
            for payment_id, end in ((paid, "gateway_approved"), (declined, "gateway_declined")):
                assert await reasons(shop, f"/payments/{payment_id}") == [
                    "accepted", "claimed", "gateway_pending", "gateway_settled", end,
                ]  # fmt: skip
        assert await results(settings, "payments_gateway_notifications_sent_total") == {"accepted": 2}
        assert await results(settings, "payments_gateway_notifications_received_total") == {"hastened": 2}


@pytest.mark.slow
async def test_a_worker_notifies_another_process_of_refunds_too(make_settings: MakeSettings, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/api/v1/webhooks/payment"
    settings = make_settings(port=port, gateway_notification_url=url, payment_success_rate=1)
    api, worker = (PaymentsProcess(name, tmp_path / name, settings) for name in ("api", "worker"))
    with processes(api, worker):
        await api.ready()
        await worker.ready()
        async with Shop(settings, role="admin") as shop:
            await shop.add_card("4000000000007726")
            payment_id = await shop.accepted()
            await ended(shop, payment_id, "COMPLETED")
            refund = (await shop.http.post(f"/payments/{payment_id}/refunds")).json()
            began = monotonic()

            async def refund_ended() -> bool:
                return bool((await shop.http.get(f"/refunds/{refund['id']}")).json()["status"] == "COMPLETED")

            await eventually(refund_ended, timeout_s=POLL_AFTER_S)
            assert REFUND_SETTLES_S - 1 < monotonic() - began < POLL_AFTER_S
            assert await reasons(shop, f"/refunds/{refund['id']}") == [
                "requested", "claimed", "gateway_pending", "gateway_settled", "gateway_approved",
            ]  # fmt: skip


async def ended(shop: Shop, payment_id: str, status: str) -> None:
    async def has_ended() -> Any:
        return (await shop.payment(payment_id))["status"] == status

    await eventually(has_ended, timeout_s=POLL_AFTER_S)
