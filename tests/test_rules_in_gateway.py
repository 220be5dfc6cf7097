"""What the simulated gateway makes of a rule, and what holds of it when the rule is gone."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

import pytest

from shared.broker.client import Broker
from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.lifecycle import FailureCode, HistoryReason, PaymentStatus
from shared.payments.outcomes import Approved, Declined, Pending
from shared.payments.payment import Payment
from shared.simulation.calls import Call
from shared.simulation.rules import Fired, Pace
from tests.support.gateways import Naps, gateway_over, payment_with, running_ledger
from tests.support.harness import SetClock
from tests.support.processing import NOW, due_again, processing, simulated_gateway
from tests.support.rows import accepted, ledger_entries, read, write
from worker.gateway.ledger import Ledger
from worker.gateway.protocol import GatewayTimedOut, GatewayUnavailable

RULE_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
CARD = {"type": "CREDIT_CARD", "details": {"brand": "visa", "last4": "4242"}, "scenario": None}


@dataclass
class OneRule:
    """A rule that fires on every call while it is there."""

    fires: Fired | None
    asked: list[Call] = field(default_factory=list)

    async def fired(self, call: Call) -> Fired | None:
        self.asked.append(call)
        return self.fires


def rule(*outcomes: str, pace: Pace = Pace.DRAWN, delay_ms: int | None = None) -> OneRule:
    return OneRule(Fired(rule_id=RULE_ID, name="a rule", outcomes=outcomes, pace=pace, delay_ms=delay_ms))


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def database(settings: Settings, clock: SetClock) -> AsyncIterator[Database]:
    opened = open_database(settings, clock=clock)
    yield opened
    await opened.dispose()


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with running_ledger(database) as ledger:
        yield ledger


async def test_a_rule_decides_and_is_asked_with_all_that_it_may_match(ledger: Ledger) -> None:
    rules = rule("lost_card")
    payment = payment_with(method=CARD, metadata={"basket": "7"})
    answer = await gateway_over(ledger, rules=rules).charge(payment)
    assert isinstance(answer, Declined)
    assert (answer.failure_code, answer.outcome_rule) == (FailureCode.LOST_CARD, f"rule:{RULE_ID}")
    [call] = rules.asked
    assert (call.user_id, call.order_id, call.metadata) == (payment.user_id, payment.order_id, {"basket": "7"})
    assert (call.brand, call.last4, call.gateway) == ("visa", "4242", answer.gateway)


async def test_where_the_request_names_the_outcome_no_rule_is_asked(ledger: Ledger) -> None:
    rules = rule("lost_card")
    steering = {"outcomes": ["approve"], "delay_ms": None, "pending_ms": None}
    payment = payment_with(method=CARD, steering=steering)
    assert isinstance(await gateway_over(ledger, rules=rules).charge(payment), Approved)
    assert rules.asked == []


async def test_what_a_rule_left_pending_is_settled_as_announced_though_the_rule_is_gone(
    database: Database, clock: SetClock, ledger: Ledger
) -> None:
    rules = rule("pending", "lost_card")
    gateway, payment = gateway_over(ledger, rules=rules), payment_with(method=CARD)
    pending = await gateway.charge(payment)
    assert isinstance(pending, Pending)
    rules.fires = None
    # A worker that died with the answer, and another one that claims the payment.
    again = payment_with(method=CARD, id=payment.id, lease_version=payment.lease_version + 1)
    assert isinstance(await gateway.charge(again), Pending)
    clock.moment += timedelta(seconds=pending.settles_in_s)
    settled = await gateway.charge(again)
    assert isinstance(settled, Declined)
    assert settled.failure_code == FailureCode.LOST_CARD
    assert await ledger_entries(database, payment.id) == ["pending", "decline"]


async def test_the_call_after_a_pending_one_is_the_next_of_the_script(
    database: Database, clock: SetClock, ledger: Ledger
) -> None:
    steering = {"outcomes": ["pending", "timeout_charged"], "delay_ms": 0, "pending_ms": None}
    gateway, payment = gateway_over(ledger), payment_with(method=CARD, steering=steering)
    pending = await gateway.charge(payment)
    assert isinstance(pending, Pending)
    clock.moment += timedelta(seconds=pending.settles_in_s)
    second = replace(payment, lease_version=payment.lease_version + 1, earlier_calls=1)
    with pytest.raises(GatewayTimedOut):
        await gateway.charge(second)
    assert await ledger_entries(database, payment.id) == ["pending", "authorize", "capture"]


async def test_an_outage_says_what_it_is(database: Database, ledger: Ledger) -> None:
    payment = payment_with(method=CARD)
    with pytest.raises(GatewayUnavailable) as unavailable:
        await gateway_over(ledger, rules=rule("network_error", pace=Pace.AT_ONCE)).charge(payment)
    assert unavailable.value.outcome_rule == f"rule:{RULE_ID}"
    with pytest.raises(GatewayTimedOut):
        await gateway_over(ledger, rules=rule("timeout_not_charged", pace=Pace.LONGEST)).charge(payment)
    assert await ledger_entries(database, payment.id) == []
    with pytest.raises(GatewayTimedOut):
        await gateway_over(ledger, rules=rule("timeout_charged", pace=Pace.LONGEST)).charge(payment)
    assert await ledger_entries(database, payment.id) == ["authorize", "capture"]


@pytest.mark.parametrize(
    ("rules", "least_s", "most_s"),
    [
        (OneRule(None), 1.0, 3.0),
        (rule(pace=Pace.AT_ONCE), 0.0, 0.0),
        (rule(pace=Pace.LONGEST), 3.0, 3.0),
        (rule(pace=Pace.SLOW), 5.0, 15.0),
        (rule(delay_ms=250), 0.25, 0.25),
    ],
)
async def test_a_rule_may_change_how_long_a_call_takes(
    ledger: Ledger, rules: OneRule, least_s: float, most_s: float
) -> None:
    naps = Naps()
    gateway = gateway_over(ledger, rules=rules, delay_min_ms=1000, delay_max_ms=3000, sleep=naps)
    await gateway.charge(payment_with(method=CARD))
    assert least_s <= round(sum(naps.taken), 9) <= most_s


async def test_a_slow_call_ends_within_its_bound(ledger: Ledger) -> None:
    naps = Naps()
    timing = {"delay_min_ms": 1000, "delay_max_ms": 3000, "slow_max_ms": 4000}
    await gateway_over(ledger, rules=rule(pace=Pace.SLOW), sleep=naps, **timing).charge(payment_with(method=CARD))
    assert sum(naps.taken) == pytest.approx(4.0)


async def test_a_plain_charge_that_a_rule_leaves_open_is_a_named_one_from_then_on(
    database: Database, clock: SetClock, broker: Broker
) -> None:
    """A version that knows no operations would take it for one that begins: the table refuses its claim."""
    clock.moment = NOW
    payment: Payment = accepted(NOW, method=CARD)
    await write(database, payment)
    async with (
        simulated_gateway(database, rules=rule("network_error", "pending")) as gateway,
        processing(database, gateway, broker, gateway_backoff_s=0) as running,
    ):
        await running.offer(payment)
        retried = await due_again(database, payment, reason=HistoryReason.RETRIED)
        assert (retried.operation, retried.gateway_tries) == (None, 1)
        assert retried.simulated is not None
        await running.offer(retried)
        await due_again(database, payment, reason=HistoryReason.GATEWAY_SETTLED)
    found = await read(database, payment.id)
    assert (found.status, found.operation, found.operation_claim) == (PaymentStatus.PROCESSING, "charge", 2)
    assert (found.earlier_calls, found.gateway_tries) == (2, 0)
    shown = found.to_json()["simulation"]
    assert shown["outcomes"] == []
    assert [(each["call"], each["outcome"], each["name"]) for each in shown["applied"]] == [
        (1, "network_error", "a rule"), (2, "pending", "a rule"),
    ]  # fmt: skip
