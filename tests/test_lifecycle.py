"""The closed sets of words and the moves between statuses: every member is classified, and no other exists."""

import inspect
import itertools
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from shared import lifecycle, refund_lifecycle
from shared.database.schema import metadata
from shared.database.tables import LIVE as LIVE_ORDERS
from shared.database.tables import deliveries, payment_history, payments
from shared.delivery_lifecycle import DeliveryKind, DeliveryStatus
from shared.event_types import CALLBACK_EVENTS, DEFAULT_EVENTS, EVENT_OF_MOVE, REFUND_EVENT_OF_REASON, EventType
from shared.lifecycle import (
    CANCELLED_AT_ONCE,
    ENDED,
    IN_PROGRESS,
    LIVE,
    MAY_BE_SETTLED,
    NOT_LIVE,
    PAID,
    REFUNDABLE,
    TRANSITIONS,
    WAITING,
    ActionResult,
    CaptureFailureCode,
    CaptureMethod,
    FailureCode,
    HistoryReason,
    MethodType,
    OutcomeRule,
    PaymentStatus,
)
from shared.refund_lifecycle import RefundCause, RefundFailureCode, RefundHistoryReason, RefundReason, RefundStatus
from tests.support.api_client import RunningApi, added, order, paid
from tests.support.settling import APPROVED, DECLINED, claimed, settled

pytest_plugins = ["tests.support.api_fixtures"]

PENDING, PROCESSING = PaymentStatus.PENDING, PaymentStatus.PROCESSING
COMPLETED, FAILED, CANCELLED = PaymentStatus.COMPLETED, PaymentStatus.FAILED, PaymentStatus.CANCELLED
REQUIRES_ACTION, AUTHORIZED = PaymentStatus.REQUIRES_ACTION, PaymentStatus.AUTHORIZED
PARTIALLY_REFUNDED, REFUNDED = PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED


def test_the_words_that_clients_see_are_these_and_no_others() -> None:
    assert set(PaymentStatus) == {
        "PENDING", "PROCESSING", "REQUIRES_ACTION", "AUTHORIZED", "COMPLETED",
        "PARTIALLY_REFUNDED", "REFUNDED", "FAILED", "CANCELLED",
    }  # fmt: skip
    assert set(EventType) == {
        "payment.initiated", "payment.requires_action", "payment.authorized",
        "payment.capture_failed", "payment.completed", "payment.failed",
        "payment.cancelled", "payment.partially_refunded", "payment.refunded", "payment.order_conflict",
        "refund.created", "refund.completed", "refund.failed", "refund.cancelled",
    }  # fmt: skip
    assert set(CaptureMethod) == {"automatic", "manual"}
    assert set(ActionResult) == {"approved", "declined"}
    assert set(CaptureFailureCode) == {"capture_declined", "network_error"}
    assert set(RefundStatus) == {"PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"}
    assert set(RefundFailureCode) == {"refund_declined", "network_error"}
    assert set(RefundReason) == {"requested_by_customer", "duplicate", "fraudulent", "order_cancelled", "other"}
    assert set(MethodType) == {"CREDIT_CARD", "DEBIT_CARD", "PAYPAL"}
    assert set(DeliveryStatus) == {"pending", "sending", "delivered", "exhausted", "cancelled"}
    assert set(DeliveryKind) == {"endpoint", "callback", "order"}
    assert set(FailureCode) == {
        "card_declined", "insufficient_funds", "network_error", "invalid_payment_method", "lost_card", "stolen_card",
        "expired_card", "incorrect_cvc", "processing_error", "card_velocity_exceeded", "fraud_suspected",
        "payer_account_restricted", "instrument_declined",
        "authentication_required", "authentication_failed", "action_expired",
        "order_not_found", "order_not_owned", "order_not_payable", "order_amount_mismatch", "order_service_unavailable",
    }  # fmt: skip


def test_every_status_is_in_exactly_one_class_of_what_happens_next() -> None:
    assert set(TRANSITIONS) == set(PaymentStatus)
    assert sorted((*IN_PROGRESS, *WAITING, *ENDED)) == sorted(PaymentStatus)
    assert set(IN_PROGRESS) == {PENDING, PROCESSING}
    assert set(WAITING) == {REQUIRES_ACTION, AUTHORIZED}
    for status in PaymentStatus:
        assert status.has_ended == (status in ENDED)
        assert status.is_settled == (status not in IN_PROGRESS)


def test_a_live_payment_blocks_its_order_until_it_is_refunded() -> None:
    assert sorted((*LIVE, *NOT_LIVE)) == sorted(PaymentStatus)
    assert set(NOT_LIVE) == {FAILED, CANCELLED, REFUNDED}
    assert {status for status in PaymentStatus if status.is_live} == set(LIVE)
    assert set(PAID) == {COMPLETED, PARTIALLY_REFUNDED} < set(LIVE)


def test_what_a_client_may_ask_for_is_written_out() -> None:
    assert set(CANCELLED_AT_ONCE) == {PENDING, REQUIRES_ACTION}
    assert set(REFUNDABLE) == {COMPLETED, PARTIALLY_REFUNDED}
    assert set(MAY_BE_SETTLED) == {PROCESSING}
    # A customer ends a payment without a worker.
    fail = {status for status in PaymentStatus if FAILED in TRANSITIONS[status]}
    assert fail == {*MAY_BE_SETTLED, REQUIRES_ACTION}


def test_every_status_is_reached_and_only_refunds_move_what_has_ended() -> None:
    reached = {PENDING}
    for _ in PaymentStatus:
        reached |= {after for before in reached for after in TRANSITIONS[before]}
    assert reached == set(PaymentStatus)
    assert PENDING not in set(itertools.chain(*TRANSITIONS.values()))
    for status in ENDED:
        assert TRANSITIONS[status] <= {COMPLETED, PARTIALLY_REFUNDED, REFUNDED}
        assert bool(TRANSITIONS[status]) == (status in REFUNDABLE)


def test_every_event_belongs_to_a_move_a_step_of_a_refund_or_a_conflict() -> None:
    of_moves, of_refunds = set(EVENT_OF_MOVE.values()), set(REFUND_EVENT_OF_REASON.values())
    assert of_moves | of_refunds | {EventType.ORDER_CONFLICT} == set(EventType)
    assert not of_moves & of_refunds
    assert set(DEFAULT_EVENTS) == {EventType.COMPLETED, EventType.FAILED, EventType.CANCELLED}
    assert set(CALLBACK_EVENTS) == set(EventType) - {EventType.INITIATED, EventType.ORDER_CONFLICT}


def test_every_end_has_an_event_whatever_its_reason() -> None:
    ends = {
        COMPLETED: {"gateway_approved", "claims_exhausted", "captured"},
        FAILED: {
            "gateway_declined", "gateway_unreachable", "claims_exhausted", "order_refused", "order_check_timed_out",
            "action_declined", "action_expired",
        },
        CANCELLED: {"cancelled", "voided"},
    }  # fmt: skip
    for status, reasons in ends.items():
        assert {reason for before, reason in EVENT_OF_MOVE if before is status} == reasons


def test_every_status_of_a_refund_is_classified() -> None:
    assert set(refund_lifecycle.TRANSITIONS) == set(RefundStatus)
    assert sorted((*refund_lifecycle.OPEN, *refund_lifecycle.ENDED)) == sorted(RefundStatus)
    assert set(refund_lifecycle.OPEN) == {RefundStatus.PENDING, RefundStatus.PROCESSING}
    assert set(refund_lifecycle.MAY_BE_CLAIMED) == {RefundStatus.PENDING, RefundStatus.PROCESSING}
    assert set(refund_lifecycle.MAY_BE_SETTLED) == {RefundStatus.PROCESSING}
    assert set(refund_lifecycle.MAY_BE_CANCELLED) == {RefundStatus.PENDING}
    assert set(refund_lifecycle.PAYMENT_REASON_OF_END) == set(refund_lifecycle.ENDED)
    for status in RefundStatus:
        assert status.has_ended == (not refund_lifecycle.TRANSITIONS[status])


def test_the_diagrams_show_every_status() -> None:
    diagram = inspect.getdoc(lifecycle) or ""
    for status in PaymentStatus:
        assert status in diagram
    for of_refund in RefundStatus:
        assert of_refund in (inspect.getdoc(refund_lifecycle) or "")


def test_the_constraint_on_live_orders_knows_the_same_statuses() -> None:
    assert str(LIVE_ORDERS) == f"status NOT IN ('{FAILED}', '{CANCELLED}', '{REFUNDED}')"


def test_every_word_fits_into_its_column() -> None:
    for words, column in (
        (PaymentStatus, payments.c.status),
        (PaymentStatus, payment_history.c.new_status),
        (ActionResult, payments.c.action_result),
        (OutcomeRule, payments.c.outcome_rule),
        (HistoryReason, payments.c.due_reason),
        (HistoryReason, payment_history.c.reason),
        (FailureCode, payments.c.failure_code),
        (FailureCode, metadata.tables["payment_methods"].c.scenario),
        (MethodType, metadata.tables["payment_methods"].c.type),
        (EventType, metadata.tables["events"].c.type),
        (DeliveryStatus, deliveries.c.status),
        (DeliveryKind, deliveries.c.kind),
        (RefundStatus, metadata.tables["refunds"].c.status),
        (RefundReason, metadata.tables["refunds"].c.reason),
        (RefundHistoryReason, metadata.tables["refund_history"].c.reason),
        (RefundFailureCode, metadata.tables["refunds"].c.failure_code),
        (RefundCause, metadata.tables["refunds"].c.cause),
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
