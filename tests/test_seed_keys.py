"""The simulator's view of a payment, and the key by which its outcome is drawn, on both databases."""

from dataclasses import replace

import pytest

from shared.database.engine import Database
from shared.gateway_calls import RepeatableKeys, UnseededKeys, payment_call
from shared.lifecycle import FailureCode, MethodType, PaymentStatus
from shared.payments.outcomes import Approved
from shared.simulation.calls import Call
from shared.simulation.scenarios import Scenario
from tests.support.processing import NOW, UnreliableDatabase, simulated_gateway
from tests.support.rows import accepted, claimed, ledger_entries, write
from worker.gateway.protocol import OutcomeUnknown


async def test_with_a_seed_a_payment_is_drawn_by_its_key_or_the_number_of_its_order(database: Database) -> None:
    failed = accepted(NOW, order_id="7", status=PaymentStatus.FAILED, due_at=None, due_reason=None)
    again = accepted(NOW, order_id="7")
    of_another_user = accepted(NOW, order_id="7", user_id="2")
    with_a_key = accepted(NOW, idempotency_key="a key")
    await write(database, failed, again, of_another_user, with_a_key)
    keys = RepeatableKeys(database)
    assert await keys.seed_key(failed) == "1 order 7 0"
    assert await keys.seed_key(again) == "1 order 7 1"
    assert await keys.seed_key(of_another_user) == "2 order 7 0"
    assert await keys.seed_key(with_a_key) == "1 key a key"


async def test_the_seed_key_of_a_payment_stays_the_same(database: Database) -> None:
    """A later payment for the same order, and the payment's own moves, change nothing."""
    first = accepted(NOW, order_id="7", status=PaymentStatus.FAILED, due_at=None, due_reason=None)
    await write(database, first)
    keys = RepeatableKeys(database)
    before = await keys.seed_key(first)
    await write(database, accepted(NOW, order_id="7"))
    assert await keys.seed_key(first) == before
    assert await keys.seed_key(replace(first, lease_version=3, gateway_tries=2, sequence=4)) == before


async def test_the_seed_key_of_the_same_request_is_the_same_in_another_run(database: Database) -> None:
    keys = RepeatableKeys(database)
    one_run, another_run = accepted(NOW, idempotency_key="a key"), accepted(NOW, idempotency_key="a key")
    assert one_run.id != another_run.id
    assert await keys.seed_key(one_run) == await keys.seed_key(another_run)


async def test_while_the_seed_key_cannot_be_read_the_outcome_is_unknown(database: Database) -> None:
    """Then the worker asks again, and nothing was drawn for another key."""
    row = accepted(NOW)
    await write(database, row)
    unreliable = UnreliableDatabase(database)
    async with simulated_gateway(database, seed="a seed", seed_keys=RepeatableKeys(unreliable)) as gateway:
        unreliable.is_away = True
        with pytest.raises(OutcomeUnknown):
            await gateway.charge(row)
        with pytest.raises(OutcomeUnknown):
            await gateway.void_or_fetch(row)
        assert await ledger_entries(database, row.id) == []
        unreliable.is_away = False
        assert isinstance(await gateway.charge(row), Approved)


async def test_without_a_seed_a_payment_is_drawn_by_its_id() -> None:
    row = accepted(NOW, idempotency_key="a key")
    assert await UnseededKeys().seed_key(row) == str(row.id)


async def test_the_simulator_sees_what_the_payment_says() -> None:
    method = {"type": "PAYPAL", "details": {}, "scenario": "payer_account_restricted"}
    row = claimed(NOW, amount=4711, currency="EUR", gateway_tries=1, method=method)
    assert await payment_call(row, UnseededKeys()) == Call(
        payment_id=row.id,
        seed_key=str(row.id),
        method_type=MethodType.PAYPAL,
        scenario=Scenario(FailureCode.PAYER_ACCOUNT_RESTRICTED),
        amount=4711,
        currency="EUR",
        number=2,
        gateway_try=1,
        user_id=row.user_id,
        order_id=row.order_id,
    )


async def test_the_simulator_sees_a_payment_whose_method_names_no_failure(database: Database) -> None:
    row = claimed(NOW, idempotency_key="a key")
    request = await payment_call(row, RepeatableKeys(database))
    assert (request.seed_key, request.scenario, request.gateway_try) == ("1 key a key", None, 0)
