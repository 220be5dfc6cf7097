"""Going back to the schema of before: refused while rows are there that the version before does not know."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from alembic.util import CommandError
from sqlalchemy import insert

from shared.config.settings import Settings
from shared.database.migrations import head, migrate, require_current
from shared.database.refund_tables import refunds
from shared.errors import SchemaOutdated
from shared.ids import new_id
from shared.lifecycle import PaymentOperation, PaymentStatus
from shared.payments.payment import Payment
from shared.refund_lifecycle import RefundStatus
from shared.simulation.clock import lock_clock, moved_to, write_clock
from tests.support.migrating import downgrade
from tests.support.rows import accepted, write
from tests.support.survival import MakeSettings, opened

BEFORE = "20261127_0008"
NOW = datetime.now(UTC)


@pytest.fixture
async def migrated(make_settings: MakeSettings, empty_database_url: str) -> Settings:
    settings = make_settings(database_url=empty_database_url)
    await migrate(settings)
    return settings


async def refuses(settings: Settings, *words: str) -> None:
    """Going back is refused in these words, and changes nothing."""
    with pytest.raises(CommandError) as caught:
        await downgrade(settings, BEFORE)
    for word in words:
        assert word in str(caught.value)
    async with opened(settings) as database:
        await require_current(database)


async def insert_payments(settings: Settings, payments: Sequence[Payment]) -> None:
    async with opened(settings) as database:
        await write(database, *payments)


NEW = (PaymentStatus.AUTHORIZED, PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED)


async def test_each_new_status_is_counted(migrated: Settings) -> None:
    found = [accepted(NOW, id=new_id(), order_id=str(new_id()), status=status) for status in (*NEW, NEW[0])]
    await insert_payments(migrated, found)
    await refuses(
        migrated,
        "2 payments that are AUTHORIZED",
        "1 payments that are PARTIALLY_REFUNDED",
        "1 payments that are REFUNDED",
    )


async def test_a_payment_that_waits_for_its_customer_is_counted(migrated: Settings) -> None:
    await insert_payments(migrated, [accepted(NOW, status=PaymentStatus.REQUIRES_ACTION)])
    await refuses(migrated, "1 payments that are REQUIRES_ACTION")


@pytest.mark.parametrize("is_faster", [True, False])
async def test_a_clock_that_is_ahead_or_faster_is_named(migrated: Settings, is_faster: bool) -> None:
    async with opened(migrated) as database, database.transaction() as connection:
        time, real_now = await lock_clock(connection)
        ahead = moved_to(time, real_now + timedelta(days=0 if is_faster else 1), real_now)
        await write_clock(connection, replace(ahead, speed=2 if is_faster else 1))
    await refuses(migrated, "service time is ahead of it or has another speed")


@pytest.mark.parametrize("status", [PaymentStatus.PENDING, PaymentStatus.PROCESSING])
async def test_an_operation_that_would_become_a_charge_is_counted(migrated: Settings, status: PaymentStatus) -> None:
    await insert_payments(migrated, [accepted(NOW, status=status, operation=PaymentOperation.AUTHORIZE)])
    await refuses(migrated, f"1 payments that are {status} for authorize")


@pytest.mark.parametrize("status", [RefundStatus.PENDING, RefundStatus.PROCESSING])
async def test_an_open_refund_is_counted(migrated: Settings, status: RefundStatus) -> None:
    payment = accepted(NOW, status=PaymentStatus.COMPLETED)
    await insert_payments(migrated, [payment])
    row = {
        "id": new_id(), "payment_id": payment.id, "number": 4, "amount": 1, "reason": "other", "metadata": {},
        "created_by": "service:shop", "status": status, "sequence": 1, "lease_version": 0, "gateway_tries": 0,
        "created_at": NOW, "updated_at": NOW,
    }  # fmt: skip
    async with opened(migrated) as database, database.transaction() as connection:
        await connection.execute(insert(refunds), [row])
    await refuses(migrated, f"1 refunds that are {status}")


async def test_what_the_version_before_knows_goes_down_and_up_again(migrated: Settings) -> None:
    known = set(PaymentStatus) - {*NEW, PaymentStatus.REQUIRES_ACTION}
    found = [accepted(NOW, id=new_id(), order_id=str(new_id()), status=status) for status in known]
    # It has ended as the version before knows it, whatever it once was due for.
    voided = accepted(NOW, id=new_id(), status=PaymentStatus.CANCELLED, operation=PaymentOperation.VOID)
    await insert_payments(migrated, [*found, voided])
    await downgrade(migrated, BEFORE)
    async with opened(migrated) as database:
        with pytest.raises(SchemaOutdated):
            await require_current(database)
    assert await migrate(migrated) == head()
