"""Signatures, verified by the official package, and what an answer means for the next try."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.settings import Settings
from shared.delivery_lifecycle import DeliveryKind
from shared.ids import new_id
from shared.keyring import new_webhook_secret
from shared.webhooks.attempts import AttemptOutcome, Delivered, Exhausted, Gone, TryAgain
from shared.webhooks.deliveries import ClaimedDelivery
from worker.deliveries.webhook import (
    JITTER_MAX,
    decide,
    headers_of,
    longest_retry_after,
    parse_retry_after,
)

SCHEDULE = (5, 300, 1800)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BODY = '{"type":"payment.completed","data":{"description":"Zwölf Äpfel"}}'.encode()


def decided(
    status: int | None, *, retry_after_s: float | None = None, retries: int = 0, jitter: float = 0.0
) -> AttemptOutcome:
    """Decide with the schedule of these tests."""
    return decide(status, retry_after_s=retry_after_s, retries=retries, schedule_s=SCHEDULE, jitter=jitter)


def test_the_headers_name_the_delivery_the_moment_of_the_claim_and_the_correlation_id() -> None:
    delivery = a_delivery(correlation_id="order-4711")
    headers = headers_of(delivery, new_webhook_secret())
    assert headers["webhook-id"] == str(delivery.id)
    assert headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    assert headers["x-correlation-id"] == "order-4711"
    assert "x-correlation-id" not in headers_of(a_delivery(correlation_id=None), new_webhook_secret())


def test_a_claimed_delivery_never_shows_its_secret_or_body() -> None:
    assert "gAAAA" not in repr(a_delivery())
    assert "Zw" not in repr(a_delivery())


def a_delivery(*, correlation_id: str | None = None) -> ClaimedDelivery:
    return ClaimedDelivery(
        id=new_id(),
        lease_version=1,
        retries=0,
        kind=DeliveryKind.ENDPOINT,
        payment_id=new_id(),
        endpoint_id=new_id(),
        correlation_id=correlation_id,
        url="https://shop.example/",
        event_type="payment.completed",
        order_id="1042",
        body=BODY,
        encrypted_secret="gAAAAencrypted",
        owner="user:1",
        claimed_at=NOW,
    )


# -- the retry policy


@pytest.mark.parametrize("status", range(100, 600))
def test_only_2xx_is_success_and_only_410_is_gone(status: int) -> None:
    outcome = decided(status)
    if 200 <= status < 300:
        assert outcome == Delivered()
    elif status == HTTPStatus.GONE:
        assert outcome == Gone()
    else:
        assert isinstance(outcome, TryAgain)


def test_no_answer_is_a_failure() -> None:
    assert decided(None) == TryAgain(5)


def test_the_waits_are_the_schedules_and_n_waits_are_n_plus_one_tries() -> None:
    assert [decided(500, retries=retries) for retries in range(4)] == [
        TryAgain(5),
        TryAgain(300),
        TryAgain(1800),
        Exhausted(),
    ]


def test_success_and_gone_count_on_the_last_try_too() -> None:
    assert decided(204, retries=3) == Delivered()
    assert decided(410, retries=3) == Gone()


def test_without_a_schedule_the_first_failure_is_the_last() -> None:
    assert decide(500, retry_after_s=None, retries=0, schedule_s=(), jitter=0) == Exhausted()


def test_the_default_schedule_makes_ten_attempts() -> None:
    schedule = Settings.model_fields["webhook_retry_schedule"].default
    outcomes = [
        decide(500, retry_after_s=None, retries=retries, schedule_s=schedule, jitter=0) for retries in range(10)
    ]
    assert outcomes.index(Exhausted()) == 9


@given(jitter=st.floats(-JITTER_MAX, JITTER_MAX), retries=st.integers(0, 2))
def test_jitter_moves_a_wait_by_a_fifth_at_most(jitter: float, retries: int) -> None:
    outcome = decided(500, retries=retries, jitter=jitter)
    assert isinstance(outcome, TryAgain)
    assert 0.8 * SCHEDULE[retries] - 1e-6 <= outcome.wait_s <= 1.2 * SCHEDULE[retries] + 1e-6


def test_jitter_is_used() -> None:
    assert decided(500, jitter=0.2) == TryAgain(6)
    assert decided(500, jitter=-0.2) == TryAgain(4)


def test_too_many_requests_waits_a_minute_at_least() -> None:
    assert decided(429) == TryAgain(60)
    assert decided(429, retry_after_s=10) == TryAgain(60)
    assert decided(429, retries=1) == TryAgain(300)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_retry_after_is_honoured_up_to_the_longest_step(status: int) -> None:
    assert decided(status, retry_after_s=90) == TryAgain(90)
    assert decided(status, retry_after_s=1_000_000) == TryAgain(1800)
    assert decided(status, retry_after_s=90, retries=1) == TryAgain(300)
    assert decided(status, retry_after_s=90, retries=3) == Exhausted()


@pytest.mark.parametrize("status", [400, 404, 500, 501, 301])
def test_retry_after_of_other_answers_is_ignored(status: int) -> None:
    assert decided(status, retry_after_s=90) == TryAgain(5)


def test_a_compressed_schedule_compresses_the_floors() -> None:
    outcome = decide(429, retry_after_s=3600, retries=0, schedule_s=(0.05, 0.2), jitter=0)
    assert outcome == TryAgain(0.2)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("²", None),
        ("9" * 5000, None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        ("Fri, 02 Jan 2026 03:05:35 GMT", 90),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), 0),
        ("Fri, 32 Jan 2026 99:05:35 GMT", None),
        ("Fri, 02 Jan 2026 03:05:35 +99999999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, NOW) == seconds


@pytest.mark.parametrize(
    ("texts", "seconds"),
    [((), None), (("100", "900"), 900), (("900", "100"), 900), (("soon", "7"), 7), (("soon", "1.5"), None)],
)
def test_of_several_retry_after_the_longest_counts(texts: tuple[str, ...], seconds: float | None) -> None:
    assert longest_retry_after(texts, NOW) == seconds


@given(st.text())
def test_no_retry_after_is_too_odd(text: str) -> None:
    parsed = parse_retry_after(text, NOW)
    assert parsed is None or parsed >= 0
