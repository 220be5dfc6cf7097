"""Settings of payments: the simulated gateway, what is accepted, and the worker."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from shared.config.values import EMPTY_IS_UNSET, LOWER_CASE
from shared.config.web_addresses import BaseUrl

# Service time is never behind real time, so that what is due by real time is found among what is due. At 10,000, a week
# passes in a minute.
SIMULATION_SPEED_MIN, SIMULATION_SPEED_MAX = 1, 10_000


class GatewaySettings(BaseSettings):
    """The simulated gateway."""

    payment_success_rate: float = Field(
        default=0.95, ge=0, le=1, description="The part (0 to 1) of the payments that succeed where no rule decides."
    )
    payment_processing_delay_min: int = Field(
        default=1000, ge=0, le=60_000, description="Milliseconds that the gateway takes at least."
    )
    payment_processing_delay_max: int = Field(
        default=3000, ge=0, le=60_000, description="Milliseconds that the gateway takes at most."
    )
    payment_failure_scenarios: bool = Field(
        default=False, description="Amounts decide outcomes too: see [simulator.md](simulator.md)."
    )
    simulation: Annotated[Literal["on", "off"] | None, LOWER_CASE, EMPTY_IS_UNSET] = Field(
        default=None,
        description="`on` allows what decides outcomes on purpose: ready-made payment methods such as `pm_test_visa`, "
        "`simulation` in a request, `POST /payments/{id}/action`, rules and the clock. `off` refuses it, and no rule "
        "fires in a worker: give API and workers the same value. Unset = `on` in development and `off` in production.",
    )
    simulation_speed: float = Field(
        default=1,
        ge=SIMULATION_SPEED_MIN,
        le=SIMULATION_SPEED_MAX,
        allow_inf_nan=False,
        description="The speed of service time as a multiple of real time, 1 to 10,000. Service time is what the "
        "service stores, shows and waits for. `payments up` and `payments migrate` write the speed into the database; "
        "an API or a worker with another value does not start. It must be 1 in production.",
    )
    gateway_notification_url: BaseUrl = Field(
        default=None,
        description="Where the simulated gateways report what they settled late, such as "
        "`http://api:8009/api/v1/webhooks/payment`; `/` and the gateway's name are added. Unset = no reports: late "
        "answers are polled. `payments up` sets it to its own API.",
    )
    simulator_seed: str | None = Field(
        default=None,
        max_length=200,
        description="A text that makes outcomes and delays the same in every run; unset = they differ.",
    )


class AcceptanceSettings(BaseSettings):
    """What the API accepts."""

    min_payment_amount: int = Field(
        default=50, ge=1, description="The smallest amount of a payment, in minor units of its currency."
    )
    max_payment_amount: int = Field(
        default=100_000_000,
        ge=1,
        le=2**63 - 1,
        description="The largest amount of a payment, in minor units of its currency.",
    )
    max_payment_methods_per_user: int = Field(
        default=5, ge=1, le=100, description="Active payment methods that one user may have."
    )
    accept_queue_max: int = Field(
        default=1000,
        ge=1,
        description="Intents of one API process that may be on their way to their commit; beyond it the answer is 503 "
        "`overloaded` at once.",
    )
    accept_batch_max: int = Field(
        default=200, ge=1, le=1000, description="Intents that one transaction writes at most."
    )
    waiters_max: int = Field(
        default=5000, ge=0, description="Requests of one API process that `Prefer: wait` may hold at once."
    )
    idempotency_retention_h: int = Field(
        default=24, ge=24, le=24 * 365, description="Hours for which an idempotency key is kept."
    )


class WorkerSettings(BaseSettings):
    """The worker."""

    worker_concurrency: int = Field(
        default=2000,
        ge=1,
        le=100_000,
        description="Slots of one worker: payments and refunds in the gateway, and payments whose order is being "
        "checked, at once. The compose file sets 100, so that scaling shows.",
    )
    lease_s: float = Field(
        default=30,
        gt=0,
        le=3600,
        description="Seconds that a claim of a payment or a refund holds. It must exceed "
        "`PAYMENT_PROCESSING_DELAY_MAX` + 10 s, with an order service `PAYMENT_PROCESSING_DELAY_MAX` + "
        "`ORDER_NOT_FOUND_AFTER_S` + 2 x `ORDER_TIMEOUT_S` + 10 s.",
    )
    authorization_valid_s_card: int = Field(
        default=7 * 24 * 3600, ge=1, le=365 * 24 * 3600, description="Seconds that an authorization of a card holds."
    )
    authorization_valid_s_paypal: int = Field(
        default=29 * 24 * 3600, ge=1, le=365 * 24 * 3600, description="Seconds that an authorization of PayPal holds."
    )
    action_expires_s: int = Field(
        default=900,
        ge=1,
        le=24 * 3600,
        description="Seconds that a customer has to approve a payment at the page of the bank or of PayPal.",
    )
    max_claims: int = Field(
        default=5,
        ge=1,
        le=100,
        description="Claims without an answer for one charge, authorization, capture or refund, after which the "
        "gateway's ledger decides.",
    )
    gateway_tries_max: int = Field(
        default=3,
        ge=1,
        le=20,
        description="Calls to the gateway for one charge, authorization, capture or refund while it gives no answer; "
        "then its ledger decides.",
    )
    gateway_backoff_s: float = Field(
        default=1, gt=0, le=600, description="Seconds between the first two of these calls; they double."
    )
    poll_delay_ms: int = Field(
        default=20,
        ge=1,
        le=10_000,
        description="Milliseconds between two looks of an idle worker into its queue while Redis does not tell it of "
        "jobs; with jobs it looks three times as often.",
    )
    relay_interval_s: float = Field(
        default=1,
        gt=0,
        le=60,
        description="Seconds between two rounds of the relay, which publishes due rows.",
    )
    relay_batch_max: int = Field(
        default=500, ge=1, le=5000, description="Rows that the relay takes in one transaction at most."
    )
