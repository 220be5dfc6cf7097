"""The closed sets of words and the moves between statuses: every member is classified, and no other exists."""

import inspect
import itertools
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from shared import lifecycle
from shared.database.tables import LIVE, deliveries, metadata, payment_history, payments
from shared.lifecycle import (
    EVENT_OF_STATUS,
    MAY_BE_CANCELLED,
    MAY_BE_CLAIMED,
    MAY_BE_SETTLED,
    NOT_LIVE,
    OPEN_DELIVERY,
    TERMINAL_EVENTS,
    TRANSITIONS,
    DeliveryKind,
    DeliveryStatus,
    EventType,
    FailureCode,
    HistoryReason,
    MethodType,
    PaymentStatus,
)
from tests.support.api_client import APPROVED, DECLINED, RunningApi, added, claimed, order, paid, settled

pytest_plugins = ["tests.support.api_fixtures"]

PENDING, PROCESSING = PaymentStatus.PENDING, PaymentStatus.PROCESSING
COMPLETED, FAILED, CANCELLED = PaymentStatus.COMPLETED, PaymentStatus.FAILED, PaymentStatus.CANCELLED


def test_the_words_that_clients_see_are_these_and_no_others() -> None:
    assert set(PaymentStatus) == {"PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"}
    assert set(EventType) == {
        "payment.initiated", "payment.completed", "payment.failed", "payment.cancelled", "payment.order_conflict",
    }  # fmt: skip
    assert set(MethodType) == {"CREDIT_CARD", "DEBIT_CARD", "PAYPAL"}
    assert set(DeliveryStatus) == {"pending", "sending", "delivered", "exhausted", "cancelled"}
    assert set(DeliveryKind) == {"endpoint", "callback", "order"}
    assert set(FailureCode) == {
        "card_declined", "insufficient_funds", "network_error", "invalid_payment_method", "lost_card", "stolen_card",
        "expired_card", "incorrect_cvc", "processing_error", "card_velocity_exceeded", "fraud_suspected",
        "payer_account_restricted", "instrument_declined",
        "order_not_found", "order_not_owned", "order_not_payable", "order_amount_mismatch", "order_service_unavailable",
    }  # fmt: skip


def test_every_status_is_classified() -> None:
    assert set(TRANSITIONS) == set(EVENT_OF_STATUS) == set(PaymentStatus)
    assert {status for status in PaymentStatus if status.is_terminal} == {COMPLETED, FAILED, CANCELLED}
    assert {status for status in PaymentStatus if status.is_live} == {PENDING, PROCESSING, COMPLETED}
    assert {FAILED, CANCELLED} == NOT_LIVE
    assert set(TERMINAL_EVENTS) == set(EventType) - {EventType.INITIATED, EventType.ORDER_CONFLICT}
    assert set(OPEN_DELIVERY) == {DeliveryStatus.PENDING, DeliveryStatus.SENDING}


def test_every_event_is_the_event_of_one_status_or_of_a_conflict() -> None:
    emitted = [event for event in EVENT_OF_STATUS.values() if event is not None]
    assert sorted([*emitted, EventType.ORDER_CONFLICT]) == sorted(EventType)


def test_every_status_is_reached_and_what_has_ended_never_moves() -> None:
    reached = {PENDING}
    for _ in PaymentStatus:
        reached |= {after for before in reached for after in TRANSITIONS[before]}
    assert reached == set(PaymentStatus)
    assert PENDING not in set(itertools.chain(*TRANSITIONS.values()))
    for status in PaymentStatus:
        assert status.is_terminal == (status not in MAY_BE_CLAIMED and status not in MAY_BE_SETTLED)


def test_what_a_status_allows_follows_from_the_moves() -> None:
    assert set(MAY_BE_CLAIMED) == {PENDING, PROCESSING}
    assert set(MAY_BE_SETTLED) == {PROCESSING}
    assert set(MAY_BE_CANCELLED) == {PENDING}
    assert {status for status in PaymentStatus if FAILED in TRANSITIONS[status]} == set(MAY_BE_SETTLED)


def test_the_diagram_shows_every_status_and_every_reason() -> None:
    diagram = inspect.getdoc(lifecycle) or ""
    for status in PaymentStatus:
        assert status in diagram
    for reason in HistoryReason:
        assert reason in diagram


def test_the_constraint_on_live_orders_knows_the_same_statuses() -> None:
    assert str(LIVE) == f"status NOT IN ('{FAILED}', '{CANCELLED}')"


def test_every_word_fits_into_its_column() -> None:
    for words, column in (
        (PaymentStatus, payments.c.status),
        (PaymentStatus, payment_history.c.new_status),
        (HistoryReason, payments.c.due_reason),
        (HistoryReason, payment_history.c.reason),
        (FailureCode, payments.c.failure_code),
        (FailureCode, metadata.tables["payment_methods"].c.scenario),
        (MethodType, metadata.tables["payment_methods"].c.type),
        (EventType, metadata.tables["events"].c.type),
        (DeliveryStatus, deliveries.c.status),
        (DeliveryKind, deliveries.c.kind),
    ):
        longest = max(len(word) for word in words)
        assert longest <= column.type.length, column  # type: ignore[attr-defined]


# -- the same on the databases


async def test_the_sequence_is_the_length_of_the_history_after_every_move(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    for end in (APPROVED, DECLINED, None):
        payment = await paid(user)
        if end is None:
            await user.post(f"/payments/{payment['id']}/cancel")
        else:
            await settled(running_api.database, payment["id"], end)
        now = (await user.get(f"/payments/{payment['id']}")).json()
        history = (await user.get(f"/payments/{payment['id']}/history")).json()["history"]
        assert now["sequence"] == len(history) == history[-1]["sequence"]
        assert history[-1]["new_status"] == now["status"]
        assert history[0]["previous_status"] is None
        for before, after in itertools.pairwise(history):
            assert after["previous_status"] == before["new_status"]
            assert PaymentStatus(after["new_status"]) in TRANSITIONS[PaymentStatus(before["new_status"])]


async def test_what_has_ended_is_not_due_and_what_lives_is(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    pending = await paid(user)
    processing = await paid(user)
    await claimed(running_api.database, processing["id"])
    ended = [await paid(user) for _ in range(3)]
    await settled(running_api.database, ended[0]["id"], APPROVED)
    await settled(running_api.database, ended[1]["id"], DECLINED)
    await user.post(f"/payments/{ended[2]['id']}/cancel")
    async with running_api.database.read() as connection:
        found = await connection.execute(select(payments.c.id).where(payments.c.due_at.is_not(None)))
        due = set(found.scalars())
    assert due == {UUID(pending["id"]), UUID(processing["id"])}


@pytest.mark.parametrize("end", [APPROVED, DECLINED])
async def test_what_has_ended_cannot_be_claimed_again(
    running_api: RunningApi, user: httpx.AsyncClient, end: object
) -> None:
    payment = (await user.post("/payments", json=order(await added(user)))).json()
    await settled(running_api.database, payment["id"], end)  # type: ignore[arg-type]
    assert await claimed(running_api.database, payment["id"]) is None
