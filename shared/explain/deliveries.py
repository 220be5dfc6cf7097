"""The deliveries of a payment's events, in words and as values."""

from datetime import datetime
from typing import Any

from shared.delivery_lifecycle import DeliveryKind
from shared.explain.facts import Facts, Reader
from shared.explain.timeline import timeline_of_delivery
from shared.explain.words import DELIVERY_STATUSES, EVENTS, duration, moment
from shared.webhooks.delivery_log import Delivery, LoggedAttempt


def delivery_values(facts: Facts, reader: Reader) -> list[dict[str, Any]]:
    """Return each delivery with its attempts and its time. Only admins see where it goes."""
    return [
        {**one.to_json(with_url=reader.is_admin), "time": timeline_of_delivery(one, facts.now).to_json()}
        for one in facts.deliveries.deliveries
    ]


def delivery_sentences(facts: Facts, reader: Reader) -> list[str]:
    """Return what is to be said of the deliveries, each with its attempts."""
    page = facts.deliveries
    sentences = [each for one in page.deliveries for each in _delivery(one, facts.now, reader)]
    if not sentences:
        return ["Nobody was to be notified."]
    if page.has_more:
        sentences.append(f"There are more. The first {len(page.deliveries)} are shown.")
    return sentences


def _delivery(one: Delivery, now: datetime, reader: Reader) -> list[str]:
    timeline = timeline_of_delivery(one, now)
    said = (
        f"{one.event_type} ({EVENTS[one.event_type]}) to {_receiver(one, reader)} {DELIVERY_STATUSES[one.status]}. "
        f"That took {duration(timeline.total_ms)}."
    )
    shown = one.attempts
    first = shown[0].number if shown else 1
    earlier = [f"Its attempts 1 to {first - 1} are not shown."] if first > 1 else []
    return [said, *earlier, *(_attempt(each, one, reader) for each in shown)]


def _receiver(one: Delivery, reader: Reader) -> str:
    at = f" at {one.url}" if reader.is_admin and one.url else ""
    match one.kind:
        case DeliveryKind.ENDPOINT:
            return f'the endpoint "{one.endpoint_name}"{at}'
        case DeliveryKind.CALLBACK:
            return f"the callback address of the payment{at}"
        case DeliveryKind.ORDER:
            return "the order service"


def _attempt(attempt: LoggedAttempt, one: Delivery, reader: Reader) -> str:
    error = attempt.to_json(with_url=reader.is_admin, with_body=False)["error"]
    to = f" to {attempt.url}" if reader.is_admin and attempt.url and attempt.url != one.url else ""
    made = f"Attempt {attempt.number}{to}, at {moment(attempt.started_at)},"
    took = f"after {duration(attempt.duration_ms)}"
    if not error:
        return f"{made} was answered with {attempt.status_code} {took}."
    seen = f", with the status {attempt.status_code}" if attempt.status_code is not None else ""
    return f"{made} failed {took}{seen}: {error.rstrip('.')}."
