"""Every column of text takes the longest value that the service may write into it, on PostgreSQL too.

PostgreSQL refuses a value that is longer than its column, and with it a whole batch; SQLite takes it.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import JSON, Boolean, DateTime, Float, Integer, String, Table, Text, Uuid, insert, select

from api.auth.principal import Role
from api.schemas.fields import METADATA_PAIRS_MAX
from shared.api_keys import START_CHARS, KeyRole, new_api_key
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.refund_tables import payment_balances
from shared.database.schema import metadata
from shared.database.tables import ERROR_CHARS_MAX, NAME_CHARS_MAX, URL_CHARS_MAX
from shared.delivery_lifecycle import DeliveryKind, DeliveryStatus
from shared.event_types import EventType
from shared.failure_reasons import FAILURE_REASONS, REFUND_FAILURE_REASONS
from shared.ids import new_id
from shared.keyring import new_webhook_secret, open_keyring
from shared.lifecycle import (
    ActionResult,
    CaptureMethod,
    FailureCode,
    HistoryReason,
    MethodType,
    OutcomeRule,
    PaymentOperation,
    PaymentStatus,
)
from shared.refund_lifecycle import RefundCause, RefundFailureCode, RefundHistoryReason, RefundReason, RefundStatus
from shared.simulation.calls import CallOperation
from shared.simulation.gateways import GatewayName
from shared.simulation.ledger_entries import EntryKind
from shared.webhooks.attempts import GONE
from shared.webhooks.endpoints import DISABLED_BY_OWNER
from tests.support.api_client import RunningApi, added, card, order

pytest_plugins = ["tests.support.api_fixtures"]

# Characters outside of the basic plane: a column counts characters, not bytes.
WIDE = "\N{MONEY BAG}"
USER_ID = "u" * 64
ACTOR = f"{max(Role, key=len)}:{USER_ID}"
ORDER_ID = "o" * 64
CORRELATION_ID = "c" * 128
KEY = "k" * 255
DESCRIPTION = WIDE * 255
NAME = WIDE * NAME_CHARS_MAX
URL = "https://shop.example/".ljust(URL_CHARS_MAX, "x")


def longest(words: Iterable[str]) -> str:
    return max(words, key=len)


def values(settings: Settings) -> dict[str, str]:
    """The longest value of each column with a limit."""
    keyring = open_keyring(settings)
    status = longest(PaymentStatus)
    return {
        "payment_methods.user_id": USER_ID,
        "payment_methods.type": longest(MethodType),
        "payment_methods.display_name": NAME,
        "payment_methods.fingerprint": keyring.fingerprint("card", "1"),
        "payment_methods.scenario": longest(FailureCode),
        "payments.user_id": USER_ID,
        "payments.created_by": ACTOR,
        "payments.order_id": ORDER_ID,
        "payments.currency": "USD",
        "payments.description": DESCRIPTION,
        "payments.callback_url": URL,
        "payments.idempotency_key": KEY,
        "payments.correlation_id": CORRELATION_ID,
        "payments.status": status,
        "payments.due_reason": longest(HistoryReason),
        "payments.gateway": longest(GatewayName),
        "payments.gateway_transaction_id": "ch_" + "t" * 24,
        "payments.outcome_rule": longest(OutcomeRule),
        "payments.failure_code": longest(FailureCode),
        "payments.failure_reason": longest(FAILURE_REASONS.values()),
        "payment_history.previous_status": status,
        "payment_history.new_status": status,
        "payment_history.reason": longest(HistoryReason),
        "payment_history.created_by": ACTOR,
        "idempotency_keys.scope": f"{ACTOR} POST /webhook-deliveries/{new_id()}/resend",
        "idempotency_keys.key": KEY,
        "idempotency_keys.fingerprint": keyring.fingerprint("request"),
        "payments.capture_method": longest(CaptureMethod),
        "payments.operation": longest(PaymentOperation),
        "payments.return_url": URL,
        "payments.action_result": longest(ActionResult),
        "gateway_ledger.key": f"{new_id()}:{longest(EntryKind)}:{2**31 - 1}",
        "gateway_ledger.kind": longest(EntryKind),
        "gateway_ledger.currency": "USD",
        "events.type": longest(EventType),
        "refunds.reason": longest(RefundReason),
        "refunds.created_by": ACTOR,
        "refunds.cause": longest(RefundCause),
        "refunds.correlation_id": CORRELATION_ID,
        "refunds.status": longest(RefundStatus),
        "refunds.due_reason": longest(RefundHistoryReason),
        "refunds.gateway": longest(GatewayName),
        "refunds.gateway_transaction_id": "re_" + "t" * 24,
        "refunds.failure_code": longest(RefundFailureCode),
        "refunds.failure_reason": longest(REFUND_FAILURE_REASONS.values()),
        "refund_history.previous_status": longest(RefundStatus),
        "refund_history.new_status": longest(RefundStatus),
        "refund_history.reason": longest(RefundHistoryReason),
        "refund_history.created_by": ACTOR,
        "webhook_endpoints.created_by": ACTOR,
        "webhook_endpoints.name": NAME,
        "webhook_endpoints.url": URL,
        "webhook_endpoints.disabled_reason": longest((GONE, DISABLED_BY_OWNER)),
        "webhook_endpoints.secret": keyring.encrypt(new_webhook_secret()),
        "deliveries.kind": longest(DeliveryKind),
        "deliveries.url": URL,
        "deliveries.correlation_id": CORRELATION_ID,
        "deliveries.status": longest(DeliveryStatus),
        "deliveries.last_error": WIDE * ERROR_CHARS_MAX,
        "delivery_attempts.error": WIDE * ERROR_CHARS_MAX,
        "delivery_attempts.url": URL,
        "api_keys.name": "n" * 64,
        "api_keys.role": longest(KeyRole),
        "api_keys.key_hash": keyring.fingerprint("api key", "1"),
        "api_keys.key_start": new_api_key()[:START_CHARS],
        "api_keys.created_by": ACTOR,
        "api_keys.revoked_by": ACTOR,
        "simulation_clock.advanced_by": str(new_id()),
        "simulation_rules.name": NAME,
        "simulation_rules.created_by": ACTOR,
        "simulation_rule_uses.operation": longest(CallOperation),
    }


def limits() -> dict[str, int]:
    """The length of each column with a limit."""
    return {
        f"{table.name}.{column.name}": column.type.length
        for table in metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, String) and not isinstance(column.type, Text) and column.type.length is not None
    }


# -- the tables


def test_every_column_with_a_limit_has_a_longest_value_that_fits(settings: Settings) -> None:
    found, known = limits(), values(settings)
    assert set(found) == set(known)
    assert {name: len(value) for name, value in known.items() if len(value) > found[name]} == {}


async def test_every_table_keeps_the_longest_values(settings: Settings, database: Database) -> None:
    known, row_id = values(settings), new_id()
    for table in metadata.sorted_tables:
        row = {column.key: filled(table, column, known, row_id) for column in table.columns}
        async with database.transaction() as connection:
            await connection.execute(insert(table), row)
        async with database.read() as connection:
            [kept] = (await connection.execute(select(*table.columns))).all()
        for column, value in zip(table.columns, kept, strict=True):
            if f"{table.name}.{column.name}" in known:
                assert value == known[f"{table.name}.{column.name}"], column


def filled(table: Table, column: Any, known: dict[str, str], row_id: Any) -> Any:
    """A value of the column: its longest one where it has a limit."""
    if (value := known.get(f"{table.name}.{column.name}")) is not None:
        return value
    if column is payment_balances.c.reserved:
        # What is refunded and what is reserved are together no more than what was captured.
        return 0
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    fillers: tuple[tuple[type[Any], Any], ...] = (
        (Uuid, row_id),
        (Boolean, True),
        (Float, 1),
        (Integer, 1),
        (Text, "x"),
        (JSON, {}),
        (DateTime, moment),
    )
    inner = getattr(column.type, "impl", column.type)
    return next(value for kind, value in fillers if isinstance(inner, kind))


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_the_limits_in_the_database_are_those_of_the_tables(database: Database) -> None:
    columns = (
        "SELECT table_name || '.' || column_name AS name, character_maximum_length AS length "
        "FROM information_schema.columns WHERE table_schema = 'payments' AND character_maximum_length IS NOT NULL"
    )
    async with database.read() as connection:
        found = {row.name: row.length for row in await connection.exec_driver_sql(columns)}
    del found["payments_alembic_version.version_num"]
    assert found == limits()


# -- what clients send


async def test_the_longest_that_a_client_may_send_is_kept_to_the_letter(running_api: RunningApi) -> None:
    user = running_api.user(USER_ID)
    # 20 pairs of 8 KiB together, the longest names, and one of the longest values.
    pairs = {f"{number:02}".ljust(40, "n"): "v" * 300 for number in range(METADATA_PAIRS_MAX - 1)} | {"w": "w" * 500}
    method = await user.post("/payment-methods", json=card(display_name=NAME, cardholder_name=NAME))
    assert (method.status_code, method.json()["display_name"]) == (201, NAME)
    sent = order(
        method.json()["id"], order_id=ORDER_ID, description=DESCRIPTION, callback_url=URL, metadata=pairs, amount=10**8
    )
    headers = {"Idempotency-Key": KEY, "X-Correlation-ID": CORRELATION_ID}
    payment = await user.post("/payments", json=sent, headers=headers)
    assert payment.status_code == 202, payment.text
    assert {name: payment.json()[name] for name in sent} == sent
    cancelled = await user.post(f"/payments/{payment.json()['id']}/cancel", headers=headers)
    assert cancelled.status_code == 200
    deliveries = (await user.get(f"/payments/{payment.json()['id']}/deliveries")).json()["deliveries"]
    resent = await user.post(f"/webhook-deliveries/{deliveries[0]['id']}/resend", headers=headers)
    assert resent.status_code == 202, resent.text


async def test_the_longest_names_of_services_and_endpoints_are_kept_to_the_letter(running_api: RunningApi) -> None:
    service = running_api.service(USER_ID)
    body = {"name": NAME, "url": URL, "event_types": sorted(kind.value for kind in EventType)}
    endpoint = await service.post("/webhook-endpoints", json=body, headers={"Idempotency-Key": KEY})
    assert endpoint.status_code == 201, endpoint.text
    assert {name: endpoint.json()[name] for name in body} == body
    assert endpoint.json()["created_by"] == f"service:{USER_ID}"
    payment = await service.post("/payments", json=order(await added(running_api.user(USER_ID)), user_id=USER_ID))
    assert (payment.status_code, payment.json()["user_id"]) == (202, USER_ID)


async def test_one_character_more_is_422(user: httpx.AsyncClient) -> None:
    for member, text in (("order_id", ORDER_ID), ("description", DESCRIPTION), ("callback_url", URL)):
        answer = await user.post("/payments", json=order("pm_test_visa", **{member: text + "x"}))
        assert answer.status_code == 422, member
    answer = await user.post("/payments", json=order("pm_test_visa"), headers={"Idempotency-Key": KEY + "x"})
    assert answer.status_code == 422
    assert (await user.post("/payment-methods", json=card(display_name=NAME + "x"))).status_code == 422
