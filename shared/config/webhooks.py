"""Settings of webhook deliveries."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings

from shared.config.values import COMMA_SEPARATED, NameServer, Network

# The schedule that Standard Webhooks suggests.
RETRY_SCHEDULE_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)


class WebhookSettings(BaseSettings):
    """Webhook deliveries."""

    webhook_concurrency: int = Field(
        default=200, ge=1, le=10_000, description="Deliveries that one worker sends at once."
    )
    webhook_concurrency_per_host: int = Field(
        default=50, ge=1, le=10_000, description="Deliveries that one worker sends to one host at once."
    )
    webhook_timeout: float = Field(default=15, gt=0, le=120, description="Seconds that one attempt may take.")
    webhook_lease_s: float = Field(
        default=30,
        gt=0,
        le=3600,
        description="Seconds that a claim of a delivery holds; must exceed `WEBHOOK_TIMEOUT` + 10 s.",
    )
    webhook_retry_schedule: Annotated[tuple[float, ...], *COMMA_SEPARATED] = Field(
        default=RETRY_SCHEDULE_S,
        description="Seconds to wait after each failed attempt, at most 30 days each, separated by commas: n waits are "
        "n + 1 attempts. `none` = one attempt.",
    )
    webhook_allowed_networks: Annotated[tuple[Network, ...], *COMMA_SEPARATED] | None = Field(
        default=None,
        description="CIDRs that deliveries may reach although they are private, separated by commas, or `none`; "
        "unset = loopback in development, else none. Our own services stay closed.",
    )
    webhook_allow_http: bool | None = Field(
        default=None,
        description="Whether a new URL of a receiver may begin with `http://`; unset = in development only. URLs that "
        "were registered before stay in use.",
    )
    webhook_name_servers: Annotated[tuple[NameServer, ...], *COMMA_SEPARATED] = Field(
        default=(),
        description="Addresses of the name servers that deliveries ask, each with a port if it is not 53, separated by "
        "commas; unset or `none` = those of the system.",
    )
