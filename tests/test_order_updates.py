"""What the order service is told of payments: sent again when asked, and nothing where there is nothing to tell."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, update

from shared.database.tables import deliveries
from shared.delivery_lifecycle import DeliveryStatus
from shared.runtime import open_runtime
from tests.support.platforms import MakeSettings, platform
from tests.support.waiting import eventually
from tests.support.workers import working

pytestmark = pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")


async def test_a_delivery_to_the_order_service_is_sent_again_when_asked(make_settings: MakeSettings) -> None:
    async with platform(make_settings, webhook_retry_schedule=(0.05,)) as shop:
        order = shop.orders.place()
        # The client repeats a PUT by itself once.
        shop.orders.updates_to_drop = 4
        payment = await shop.pay(order)
        delivery = await shop.order_update(payment, "exhausted")
        assert (delivery["tries"], order.moves) == (2, [])
        again = await shop.running_api.bearing(shop.auth.token(1)).post(f"/webhook-deliveries/{delivery['id']}/resend")
        assert again.status_code == 202
        await shop.order_update(payment)
        assert order.moves == ["CONFIRMED"]


async def test_orders_of_payments_that_fail_are_not_confirmed(make_settings: MakeSettings) -> None:
    async with platform(make_settings, payment_success_rate=0) as shop:
        order = shop.orders.place()
        declined = await shop.pay(order, payment_method_id="pm_test_random_card")
        assert (await shop.ended(declined))["status"] == "FAILED"
        async with shop.database.read() as connection:
            found = (await connection.execute(select(deliveries.c.kind))).scalars().all()
        assert list(found) == []
        assert shop.orders.asked("PUT") == []


async def test_without_an_order_service_no_order_is_checked_or_updated(make_settings: MakeSettings) -> None:
    async with platform(make_settings, order_service_url=None) as shop:
        ended = await shop.ended(await shop.pay(12345))
        assert ended["status"] == "COMPLETED"
        shown = (await shop.user.get(f"/payments/{ended['id']}/deliveries")).json()["deliveries"]
        assert shown == []
        assert shop.orders.requests == []


async def test_a_worker_that_knows_no_order_service_leaves_the_update_to_be_tried_again(
    make_settings: MakeSettings,
) -> None:
    """As when the variable is taken away, or was forgotten on one of the workers."""
    async with platform(make_settings, webhook_retry_schedule=(0.05,)) as shop:
        order = shop.orders.place()
        delivery = await shop.order_update(await shop.pay(order))
    forgetful = shop.runtime.settings.model_copy(update={"order_service_url": None})
    runtime = open_runtime(forgetful)
    try:
        async with runtime.database.transaction() as connection:
            now = await runtime.database.clock.now(connection) - timedelta(seconds=1)
            await connection.execute(
                update(deliveries)
                .where(deliveries.c.id == UUID(delivery["id"]))
                .values(status=DeliveryStatus.PENDING, retries=0, due_at=now)
            )
        async with working(runtime):

            async def is_exhausted() -> bool:
                async with runtime.database.read() as connection:
                    found = (await connection.execute(select(deliveries.c.status, deliveries.c.last_error))).one()
                return bool(found.status == "exhausted" and "ORDER_SERVICE_URL" in found.last_error)

            await eventually(is_exhausted)
    finally:
        await runtime.close()
