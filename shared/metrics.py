"""What is counted, with Prometheus names and units. One registry per process; counting never raises and never waits."""

from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25)
SETTLE_BUCKETS_S = (0.1, 0.25, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 7.5, 10, 30, 60, 300)

http_requests = Counter("payments_http_requests_total", "Requests answered.", ["method", "route", "status"])
http_request_seconds = Histogram(
    "payments_http_request_seconds", "From request to answer.", ["method", "route"], buckets=LATENCY_BUCKETS_S
)
accepted = Counter("payments_accepted_total", "Payment intents written down.")
accept_queued = Gauge("payments_accept_queue_members", "Intents waiting for their transaction.")
shed = Counter("payments_shed_total", "Intents turned away with 503, for too many were on their way.")
waiters = Gauge("payments_waiters", "Requests held by Prefer: wait.")
claimed = Counter("payments_claimed_total", "Claims of payments by this worker.", ["reason"])
settled = Counter("payments_settled_total", "Payments that reached COMPLETED or FAILED.", ["status", "failure_code"])
settle_seconds = Histogram(
    "payments_settle_seconds", "From acceptance to COMPLETED or FAILED.", buckets=SETTLE_BUCKETS_S
)
in_gateway = Gauge("payments_in_gateway", "Payments of this worker that the gateway is working on.")
deliveries = Counter("payments_delivery_attempts_total", "Attempts to deliver a webhook.", ["kind", "outcome"])
delivery_seconds = Histogram(
    "payments_delivery_attempt_seconds", "Duration of an attempt to deliver.", buckets=LATENCY_BUCKETS_S
)
neighbour_requests = Counter(
    "payments_neighbour_requests_total", "Answers of the auth and the order service.", ["neighbour", "status"]
)
relayed = Counter("payments_relayed_total", "Due rows that the relay published.", ["queue"])
queue_depth = Gauge("payments_pending", "Payments that no worker has claimed, in the whole installation.")
in_flight = Gauge("payments_processing", "Payments that are claimed, in the whole installation.")
oldest_pending_seconds = Gauge("payments_oldest_pending_seconds", "Age of the oldest payment that nobody has claimed.")
webhook_backlog = Gauge("payments_webhook_backlog", "Deliveries that are still to be made, in the whole installation.")
workers_alive = Gauge("payments_workers", "Workers that said within seconds that they are alive.")
worker_slots = Gauge("payments_worker_slots", "Payments that all workers together may hold in the gateway.")
worker_slots_taken = Gauge("payments_worker_slots_taken", "Payments that all workers together hold in the gateway.")

CONTENT_TYPE = CONTENT_TYPE_LATEST


def exposition() -> bytes:
    """This process's figures in Prometheus' text format."""
    return generate_latest()
