"""What an explanation is made from: the rows of one payment, the settings of the gateway, and who asks. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.payments.payment import Payment
from shared.refunds.refund import Refund
from shared.simulation.decisions import OutcomeSettings
from shared.simulation.delays import Delays
from shared.simulation.ledger_entries import EntryKind
from shared.simulation.rules import Rule
from shared.webhooks.delivery_log import DeliveryPage

# An `outcome_rule` that begins like this has the id of a rule of an admin.
RULE_PREFIX = "rule:"


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """A row in the history of a payment or of a refund."""

    sequence: int
    status: str
    reason: str
    metadata: Mapping[str, Any]
    at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """An entry of the gateway's ledger; `number` is that of a capture or a refund."""

    key: str
    kind: EntryKind
    number: int | None
    amount: int
    answer: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True, slots=True)
class RefundFacts:
    """A refund with its history. `earlier` counts the refunds of the payment before it."""

    refund: Refund
    history: tuple[HistoryRow, ...]
    earlier: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The rows of a payment. `earlier` counts the payments of its user for its order before it.

    `rule` is the rule that decided, as long as there is a row of it.
    """

    payment: Payment
    history: tuple[HistoryRow, ...]
    has_more_history: bool
    ledger: tuple[LedgerRow, ...]
    refunds: tuple[RefundFacts, ...]
    refunds_total: int
    deliveries: DeliveryPage
    earlier: int
    rule: Rule | None
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """The settings of the simulated gateway, as the process that explains has them.

    `is_seeded` says whether random numbers are drawn for what the client sent. `backoff_s` is the pause after the first
    try that reached nobody; the pauses double.
    """

    outcomes: OutcomeSettings
    delays: Delays
    is_seeded: bool
    delay_min_ms: int
    delay_max_ms: int
    backoff_s: float
    is_simulation_on: bool
    checks_orders: bool


@dataclass(frozen=True, slots=True)
class Reader:
    """Who asks. Admins see receivers' addresses, workers, keys of the ledger and that of the random numbers, too."""

    user_id: str
    is_admin: bool
