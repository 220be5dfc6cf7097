"""Models of health, of the live figures and of the reports of `payments verify`. They only describe responses."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.fields import Int64

VERIFY_REPORT_EXAMPLE: dict[str, Any] = {
    "version": "0.2.0",
    "started_at": "2026-11-24T15:00:00.000Z",
    "finished_at": "2026-11-24T15:00:21.417Z",
    "is_sound": False,
    "payments_checked": 1_000_000,
    "idempotency_keys_checked": 1_000_000,
    "oldest_due_s": {"payments": 0.2, "refunds": 0.0, "deliveries": 0.0},
    "oldest_unclaimed_s": {"payments": 0.4, "refunds": 0.0, "deliveries": 0.0},
    "invariants": [
        {
            "name": "event",
            "promise": "Every move that calls for an event has exactly one, and there is no other event.",
            "breaches": 1,
        }
    ],
    "breaches_total": 1,
    "breaches": [
        {
            "kind": "event_missing",
            "invariant": "event",
            "words": "A move of the payment has no event.",
            "what_to_do": "Inform the receiver by hand, because there is no delivery to resend. "
            "Then look in the log for the transaction of the event.",
            "total": 1,
            "shown": [
                {
                    "payment_id": "0199f0a2-7d7e-7c3a-9a51-0d4b1f2f6f00",
                    "sequence": 3,
                    "event_type": "payment.completed",
                }
            ],
        }
    ],
}

VERIFY_RUN_EXAMPLE: dict[str, Any] = {
    "id": "0199f0a2-7d7e-7c3a-9a51-0d4b1f2f6f10",
    "asked_at": "2026-11-24T15:00:00.000Z",
    "status": "running",
    "worker": "worker-1-17-4f2a",
    "checked": 840_000,
    "total": 2_000_000,
    "failure": None,
}


class Health(BaseModel):
    """The health of this process: it answers."""

    status: Literal["healthy"]
    timestamp: datetime = Field(description="The clock of this process.")
    version: str
    uptime: float = Field(description="Seconds since this process began to serve.")


type Readiness = Literal["ready", "not_ready", "not_configured"]


class Ready(BaseModel):
    """What this process can reach."""

    ready: bool = Field(description="Whether payments can be accepted: only the database decides that.")
    checks: dict[Literal["database", "redis", "auth_service", "order_service"], Readiness]


class Worker(BaseModel):
    """A worker that is alive, as its last heartbeat describes it."""

    worker: str = Field(description="Its host, its process id and a few random letters.")
    slots: int = Field(
        description="The largest number of payments that it has at the order service and the gateway at once."
    )
    in_gateway: int = Field(description="Payments and refunds that the gateway is working on.")
    checking_orders: int = Field(
        description="Payments that wait for the order service, before the gateway gets them. They hold a slot, too."
    )
    sending: int = Field(description="Deliveries that are being sent.")
    settled: Int64 = Field(description="Payments that it has completed or failed since it started.")
    settled_per_s: float = Field(description="Payments per second that it completed or failed in the last 5 seconds.")
    uptime_s: float = Field(description="Seconds since it started.")
    version: str | None = Field(description="Its version; null for a worker of 0.1.")


class Figures(BaseModel):
    """The live figures of the whole installation, counted at most once a second."""

    computed_at: datetime
    queue_depth: Int64 = Field(description="Payments that no worker has claimed.")
    in_flight: int = Field(
        description="Payments that are PROCESSING: claimed by a worker, or waiting for another try, for a capture or a "
        "void, or for a late answer of the gateway."
    )
    oldest_pending_s: float = Field(description="The age in seconds of the oldest payment that no worker has claimed.")
    refund_backlog: Int64 = Field(description="Refunds that have not ended: PENDING or PROCESSING.")
    webhook_backlog: Int64 = Field(description="Deliveries that are open: due now, due later or being sent.")
    accepted_per_s: float = Field(description="Payments accepted per second, over the last 5 seconds.")
    settled_per_s: float | None = Field(
        description="Payments that all workers complete or fail per second; null if Redis does not answer."
    )
    workers: list[Worker] | None = Field(
        description="The workers that are alive, by name; null if Redis does not answer."
    )


class Invariant(BaseModel):
    """What must hold, and how often it does not."""

    name: str
    promise: str = Field(description="What must hold, in words.")
    breaches: Int64 = Field(description="How often it does not hold.")


class Breaches(BaseModel):
    """The breaches of one kind."""

    kind: str
    invariant: str = Field(description="The name of the invariant that is broken.")
    words: str = Field(description="The kind in words.")
    what_to_do: str = Field(description="What an operator should do.")
    total: Int64
    shown: list[dict[str, Any]] = Field(description="The first of them, each with the ids that locate it.")


class VerifyReport(BaseModel):
    """The report of a verification."""

    model_config = ConfigDict(json_schema_extra={"examples": [VERIFY_REPORT_EXAMPLE]})

    version: str = Field(description="The version of the service that verified.")
    started_at: datetime
    finished_at: datetime
    is_sound: bool = Field(description="Whether there is no breach.")
    payments_checked: Int64
    idempotency_keys_checked: Int64
    oldest_due_s: dict[str, float] = Field(
        description="For each table, for how many seconds its oldest open row has been due; 0 if none is."
    )
    oldest_unclaimed_s: dict[str, float] = Field(
        default_factory=dict,
        description="For each table, for how many seconds its oldest row has waited for its first claim; 0 if none "
        "waits. Reports of older versions do not say it.",
    )
    invariants: list[Invariant]
    breaches_total: Int64
    breaches: list[Breaches]


class VerifyRun(BaseModel):
    """A verification that was asked of the workers."""

    model_config = ConfigDict(json_schema_extra={"examples": [VERIFY_RUN_EXAMPLE]})

    id: str
    asked_at: datetime
    status: Literal["waiting", "running", "done", "failed"] = Field(
        description="`waiting`: no worker has taken it, which one does within a second. `done`: there is a report."
    )
    worker: str | None = Field(description="The worker that does it; null before one has taken it.")
    checked: Int64 = Field(description="Payments and idempotency keys that were checked.")
    total: Int64 | None = Field(description="How many there are; null until they are counted.")
    failure: str | None = Field(description="Why there is no report; null unless it failed.")
