"""Settings of the order service, and of the health of all upstream services."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from shared.config.values import LOWER_CASE, HttpUrl


class OrderServiceSettings(BaseSettings):
    """The order service."""

    order_service_url: HttpUrl = Field(
        default=None, description="The order service; unset = orders are neither checked nor confirmed."
    )
    order_check_timeout: float = Field(
        default=60,
        ge=0,
        le=86_400,
        description="Seconds that a payment waits for an order service that does not answer; then the payment fails.",
    )
    order_backoff_s: float = Field(
        default=1,
        gt=0,
        le=600,
        description="Seconds between the first two such checks of an order; they double, up to 10 s.",
    )
    order_not_found_after_s: float = Field(
        default=3,
        ge=0,
        le=30,
        description="Seconds over which three 500s of a healthy order service mean that there is no such order.",
    )
    order_timeout_s: float = Field(
        default=3, gt=0, le=30, description="Seconds that one call to the order service may take."
    )
    order_connections_max: int = Field(
        default=50, ge=1, le=1000, description="Connections of one worker to the order service."
    )
    order_on_refund: Annotated[Literal["none", "cancel"], LOWER_CASE] = Field(
        default="none",
        description="`cancel` sets the order of a REFUNDED payment to CANCELLED where that is allowed; `none` leaves "
        "it as it is.",
    )
    order_conflict: Annotated[Literal["report", "refund"], LOWER_CASE] = Field(
        default="report",
        description="What becomes of a payment that completed although its order was cancelled meanwhile: `report` "
        "emits `payment.order_conflict`; `refund` also refunds what is refundable, once.",
    )

    @property
    def cancels_orders(self) -> bool:
        """The order service is told of refunded payments."""
        return self.order_service_url is not None and self.order_on_refund == "cancel"


class UpstreamSettings(BaseSettings):
    """All upstream services."""

    breaker_failures: int = Field(
        default=5, ge=1, le=1000, description="Failures in a row after which an upstream service is not called."
    )
    breaker_open_s: float = Field(
        default=2, gt=0, le=300, description="Seconds for which it is then not called, until one call probes it."
    )
    ready_timeout_s: float = Field(
        default=1, gt=0, le=10, description="Seconds that `/health/ready` waits for the health of an upstream service."
    )
    ready_cache_s: float = Field(
        default=2, ge=0, le=60, description="Seconds for which `/health/ready` keeps the answer of an upstream service."
    )
