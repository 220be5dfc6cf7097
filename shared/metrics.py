"""The metrics of a process, with Prometheus names and units. Counting never raises and never waits."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25)
# Finest from 1 to 4 s, as the gateway takes 1 to 3 s by default.
SETTLE_BUCKETS_S = (0.1, 0.25, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 7.5, 10, 30, 60, 300)

build = Gauge("payments_build_info", "1; the version of the service that this process runs.", ["version"])
http_requests = Counter("payments_http_requests_total", "Requests answered.", ["method", "route", "status"])
http_request_seconds = Histogram(
    "payments_http_request_seconds", "From request to answer.", ["method", "route"], buckets=LATENCY_BUCKETS_S
)
accepted = Counter("payments_accepted_total", "Payment intents written down.")
accept_seconds = Histogram(
    "payments_accept_seconds", "From an intent that is checked to its commit.", buckets=LATENCY_BUCKETS_S
)
accept_queued = Gauge("payments_accept_queue_members", "Intents waiting for their transaction.")
shed = Counter("payments_shed_total", "Requests refused with 503 because too many were in progress.")
waiters = Gauge("payments_waiters", "Requests held by Prefer: wait.")
claimed = Counter("payments_claimed_total", "Claims of payments by this worker.", ["reason"])
settled = Counter("payments_settled_total", "Payments that reached COMPLETED or FAILED.", ["status", "failure_code"])
settle_seconds = Histogram(
    "payments_settle_seconds",
    "From acceptance to COMPLETED or FAILED, of payments that waited for nobody.",
    buckets=SETTLE_BUCKETS_S,
)
refunds_settled = Counter(
    "payments_refunds_settled_total", "Refunds that reached COMPLETED or FAILED.", ["status", "failure_code"]
)
in_gateway = Gauge("payments_in_gateway", "Payments and refunds of this worker that the gateway is working on.")
checking_orders = Gauge("payments_checking_orders", "Payments of this worker that wait for the order service.")
deliveries = Counter("payments_delivery_attempts_total", "Attempts to deliver a webhook.", ["kind", "outcome"])
delivery_seconds = Histogram(
    "payments_delivery_attempt_seconds", "Duration of an attempt to deliver.", buckets=LATENCY_BUCKETS_S
)
upstream_requests = Counter(
    "payments_upstream_requests_total",
    "Answers of the auth and the order service, of the URL of the JWKS and of GATEWAY_NOTIFICATION_URL.",
    ["upstream", "status"],
)
notifications_sent = Counter(
    "payments_gateway_notifications_sent_total",
    "Notifications of late answers that this worker's gateway sent, or did not.",
    ["result"],
)
notifications_received = Counter(
    "payments_gateway_notifications_received_total", "Notifications that gateways sent to this API.", ["result"]
)
database_errors = Counter(
    "payments_database_errors_total", "Errors of the database, by what they mean (see shared/errors.py).", ["meaning"]
)
database_ready = Gauge(
    "payments_database_ready", "1 if the last look found that this process can read, write and commit, else 0."
)
relayed = Counter("payments_relayed_total", "Due rows that the relay published.", ["queue"])
# Figures of the whole installation. The API counts them when it is asked; a worker would only know zeros.
INSTALLATION = CollectorRegistry()
queue_depth = Gauge(
    "payments_pending", "Payments that no worker has claimed, in the whole installation.", registry=INSTALLATION
)
in_flight = Gauge(
    "payments_processing", "Payments that are PROCESSING, in the whole installation.", registry=INSTALLATION
)
oldest_pending_seconds = Gauge(
    "payments_oldest_pending_seconds", "Age of the oldest payment that no worker has claimed.", registry=INSTALLATION
)
refund_backlog = Gauge(
    "payments_refund_backlog", "Refunds that have not ended, in the whole installation.", registry=INSTALLATION
)
webhook_backlog = Gauge(
    "payments_webhook_backlog",
    "Deliveries that are still to be made, in the whole installation.",
    registry=INSTALLATION,
)
workers_alive = Gauge("payments_workers", "Workers whose heartbeat has not expired.", registry=INSTALLATION)
worker_slots = Gauge("payments_worker_slots", "Slots of all workers.", registry=INSTALLATION)
worker_slots_taken = Gauge(
    "payments_worker_slots_taken", "Slots of all workers that a payment has taken.", registry=INSTALLATION
)

keys_purged = Counter("payments_idempotency_keys_purged_total", "Idempotency keys that this worker has removed.")
can_publish = Gauge(
    "payments_can_publish", "1 if this process could publish jobs when it tried last, 0 if Redis refused or was away."
)
broker_failures = Counter("payments_broker_failures_total", "Calls of Redis that failed, by what it said.", ["kind"])
log_lines_lost = Counter("payments_log_lines_lost_total", "Log lines that could not be written.")
log_lines_left_out = Counter(
    "payments_log_lines_left_out_total", "Lines that were not logged because they repeat.", ["event"]
)


def outcomes() -> dict[str, int]:
    """Return how many payments this process has settled, by failure code, or by status for those without one."""
    counts: dict[str, int] = {}
    for metric in settled.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total"):
                outcome = sample.labels["failure_code"] or sample.labels["status"]
                counts[outcome] = counts.get(outcome, 0) + int(sample.value)
    return counts


def bucket_counts(histogram: Histogram) -> list[int]:
    """Return how many values fell into each bucket of a histogram without labels, the last one without a bound."""
    counts: list[int] = []
    below = 0
    for metric in histogram.collect():
        for sample in metric.samples:
            if sample.name.endswith("_bucket"):
                counts.append(int(sample.value) - below)
                below = int(sample.value)
    return counts


CONTENT_TYPE = CONTENT_TYPE_LATEST


def exposition() -> bytes:
    """Return the metrics of this process in the text format of Prometheus."""
    return generate_latest()


def installation_exposition() -> bytes:
    """Return the metrics of this process and of the whole installation, whose gauges the caller has set."""
    return generate_latest() + generate_latest(INSTALLATION)
