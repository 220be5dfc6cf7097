"""The requests that make the same outcome again, to paste into a shell."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from shared.explain.facts import Facts, GatewaySettings, Reader
from shared.explain.operations import Operation
from shared.lifecycle import (
    NOT_LIVE,
    CaptureMethod,
    FailureCode,
    HistoryReason,
    MethodType,
    OutcomeRule,
    PaymentStatus,
)
from shared.refund_lifecycle import RefundHistoryReason
from shared.simulation.calls import OUTCOMES_MAX, CallOperation, CallOutcome, outcomes_of
from shared.simulation.ready_made import READY_MADE
from shared.simulation.scenarios import read_scenario

# Refunds that are asked for again at most.
REFUNDS_MAX = 5
# Milliseconds in which a payment that was cancelled at once can be cancelled again.
TO_CANCEL_MS = 60_000
ORDER_ENDING = "-again"
ORDER_CHARS_MAX = 64

_STEERED_METHODS = {
    MethodType.CREDIT_CARD: "pm_test_visa",
    MethodType.DEBIT_CARD: "pm_test_debit",
    MethodType.PAYPAL: "pm_test_paypal",
}
_RANDOM_METHODS = {
    MethodType.CREDIT_CARD: "pm_test_random_card",
    MethodType.DEBIT_CARD: "pm_test_random_debit",
    MethodType.PAYPAL: "pm_test_random_paypal",
}


@dataclass(frozen=True, slots=True)
class AgainRequest:
    """A request. `$ID` in its path is the id in the answer to the first one."""

    path: str
    body: dict[str, Any] | None = None

    @property
    def curl(self) -> str:
        """The request as a command for a shell, with $API and $TOKEN."""
        asked = f'curl -X POST "$API{self.path}" -H "Authorization: Bearer $TOKEN" -H \'Prefer: wait=20\''
        if self.body is None:
            return asked
        return f"{asked} -H 'Content-Type: application/json' -d {shlex.quote(orjson.dumps(self.body).decode())}"

    def to_json(self) -> dict[str, Any]:
        """Return the request as clients see it."""
        return {"method": "POST", "path": self.path, "body": self.body, "curl": self.curl}


@dataclass(frozen=True, slots=True)
class Again:
    """What makes the same outcome again. `is_same` is False where no request can promise that."""

    is_same: bool
    sentences: list[str]
    requests: list[AgainRequest]

    def to_json(self) -> dict[str, Any]:
        """Return the requests as clients see them."""
        return {"is_same_outcome": self.is_same, "requests": [each.to_json() for each in self.requests]}


def again(
    facts: Facts, operations: list[Operation], refunds: list[Operation], settings: GatewaySettings, reader: Reader
) -> Again:
    """Return the requests that make the outcome of these operations again."""
    first = operations[0]
    can_steer = settings.is_simulation_on
    body = _body(facts, first, settings, reader)
    requests = [AgainRequest("/payments", body), *_later(facts, operations, can_steer=can_steer)]
    requests += [_refund(one, facts, can_steer=can_steer) for one in refunds[:REFUNDS_MAX]]
    sentences = [_to_paste(is_several=len(requests) > 1)]
    is_same, why = _promise(facts, settings)
    sentences += [why] if why else []
    if "user_id" in body:
        sentences.append("Only services and admins may name the user who pays, in `user_id`.")
    sentences += _notes(facts, operations, settings, is_merchant=len(requests) > 1)
    return Again(is_same, sentences, requests)


def _to_paste(*, is_several: bool) -> str:
    what = "these requests one after the other" if is_several else "this request"
    where = " ID is the `id` in the answer to the first one." if is_several else ""
    return f"Paste {what}. API is the address of the service up to /api/v1, and TOKEN is your token.{where}"


def _body(facts: Facts, first: Operation, settings: GatewaySettings, reader: Reader) -> dict[str, Any]:
    payment = facts.payment
    body: dict[str, Any] = {
        "order_id": _order_id(facts, settings),
        "payment_method_id": str(payment.payment_method_id),
        "amount": payment.amount,
        "currency": payment.currency,
    }
    if payment.capture_method == CaptureMethod.MANUAL:
        body["capture_method"] = CaptureMethod.MANUAL.value
    if payment.return_url:
        body["return_url"] = payment.return_url
    if payment.user_id != reader.user_id:
        body["user_id"] = payment.user_id
    if settings.is_simulation_on:
        named = _ready_made(facts)
        simulation = _simulation_of_charge(facts, first, settings, is_named=named is not None)
        others = _STEERED_METHODS if "outcomes" in simulation else _RANDOM_METHODS
        body["payment_method_id"] = named or others[MethodType(payment.method["type"])]
        if simulation:
            body["simulation"] = simulation
    return body


def _order_id(facts: Facts, settings: GatewaySettings) -> str:
    """Return the same order if it can be paid, or if an order service knows no other; else a new one."""
    payment = facts.payment
    if settings.checks_orders or payment.status in NOT_LIVE:
        return payment.order_id
    return payment.order_id[: ORDER_CHARS_MAX - len(ORDER_ENDING)] + ORDER_ENDING


def _ready_made(facts: Facts) -> str | None:
    """Return the ready-made method that makes of every payment what the payment's own method does; None if none does.

    A method that follows the success rate makes nothing certain.
    """
    method, scenario = facts.payment.method, read_scenario(facts.payment.method)
    if "name" in method:
        return str(method["name"])
    equal = (each.name for each in READY_MADE.values() if each.type == method["type"] and each.scenario == scenario)
    return None if scenario is None else next(equal, None)


def _simulation_of_charge(
    facts: Facts, first: Operation, settings: GatewaySettings, *, is_named: bool
) -> dict[str, Any]:
    payment = facts.payment
    simulation = _as_asked(first.steering)
    reasons = [row.reason for row in first.rows]
    by = payment.outcome_rule
    is_amount = by == OutcomeRule.AMOUNT and settings.outcomes.uses_test_amounts
    is_by_method = is_named and by in {None, OutcomeRule.CARD, OutcomeRule.ADDRESS, OutcomeRule.CUSTOMER}
    needs_outcomes = not (is_amount or is_by_method or by == OutcomeRule.ORDER)
    if "outcomes" not in simulation and (needs_outcomes or first.remarks):
        # What the customer has decided, no call to the gateway does.
        outcomes = _outcomes(first, None if by == OutcomeRule.CUSTOMER else payment.failure_code)
        asks = HistoryReason.ACTION_REQUIRED in reasons and payment.method["type"] != MethodType.PAYPAL
        if asks and FailureCode.AUTHENTICATION_REQUIRED not in outcomes:
            outcomes.insert(0, FailureCode.AUTHENTICATION_REQUIRED.value)
        simulation["outcomes"] = outcomes
    if _is_cancelled_at_once(facts, first) and HistoryReason.ACTION_REQUIRED not in reasons:
        simulation["pending_ms"] = max(simulation.get("pending_ms", 0), TO_CANCEL_MS)
    return simulation


def _as_asked(steering: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a request has asked for, without what it has left out."""
    return {name: value for name, value in (steering or {}).items() if value not in (None, [])}


def _outcomes(operation: Operation, failure_code: str | None) -> list[str]:
    """Return what each call of an operation did, as a request can ask for it."""
    # What an order refuses, no call to the gateway does.
    is_known = failure_code in outcomes_of(CallOperation(operation.name))
    ended = str(failure_code if is_known else CallOutcome.APPROVE)
    by_call: dict[int, str] = {}
    for claim in operation.claims:
        if claim.call is None:
            continue
        after = claim.ended.reason if claim.ended else None
        outcome = ended
        if claim.call.remark and claim.call.remark["outcome"]:
            outcome = claim.call.remark["outcome"]
        elif after in {HistoryReason.RETRIED, HistoryReason.GATEWAY_UNREACHABLE}:
            outcome = CallOutcome.NETWORK_ERROR
        elif after == HistoryReason.GATEWAY_PENDING:
            outcome = CallOutcome.PENDING
        by_call[claim.call.number] = str(outcome)
    outcomes = [by_call[number] for number in sorted(by_call)] or [ended]
    while len(outcomes) > 1 and outcomes[-1] == outcomes[-2]:
        outcomes.pop()
    return outcomes[:OUTCOMES_MAX]


def _later(facts: Facts, operations: list[Operation], *, can_steer: bool) -> list[AgainRequest]:
    """Return the requests after the first: the customer's answer, captures and cancels."""
    requests = []
    for operation in operations:
        for row in operation.rows:
            if row.reason in {HistoryReason.ACTION_APPROVED, HistoryReason.ACTION_DECLINED} and can_steer:
                result = "approve" if row.reason == HistoryReason.ACTION_APPROVED else "decline"
                requests.append(AgainRequest("/payments/$ID/action", {"result": result}))
        begun = operation.rows[0].reason
        if begun == HistoryReason.CAPTURE_REQUESTED:
            body: dict[str, Any] = {"amount": operation.amount}
            failed = operation.rows[-1].metadata.get("failure_code")
            requests.append(
                AgainRequest("/payments/$ID/capture", body | _simulation(operation, failed, can_steer=can_steer))
            )
        if begun == HistoryReason.VOID_REQUESTED or _is_cancelled_at_once(facts, operation):
            requests.append(AgainRequest("/payments/$ID/cancel"))
    return requests


def _refund(operation: Operation, facts: Facts, *, can_steer: bool) -> AgainRequest:
    refund = next(one.refund for one in facts.refunds if one.history == operation.rows)
    body = {"amount": operation.amount, "reason": refund.reason}
    return AgainRequest(
        "/payments/$ID/refunds", body | _simulation(operation, refund.failure_code, can_steer=can_steer)
    )


def _simulation(operation: Operation, failure_code: str | None, *, can_steer: bool) -> dict[str, Any]:
    """Return the member that steers a capture or a refund like this one; none if nothing need be steered."""
    if not can_steer:
        return {}
    simulation = _as_asked(operation.steering)
    reasons = {row.reason for row in operation.rows}
    is_plain = not operation.remarks and not reasons & {HistoryReason.RETRIED, RefundHistoryReason.GATEWAY_UNREACHABLE}
    if "outcomes" not in simulation and not (is_plain and failure_code is None):
        simulation["outcomes"] = _outcomes(operation, failure_code)
    return {"simulation": simulation} if simulation else {}


def _is_cancelled_at_once(facts: Facts, operation: Operation) -> bool:
    is_cancelled = facts.payment.status is PaymentStatus.CANCELLED
    return is_cancelled and operation.rows[-1].reason == HistoryReason.CANCELLED


def _promise(facts: Facts, settings: GatewaySettings) -> tuple[bool, str | None]:
    """Return whether the outcome is the same again, and what is to be said of that."""
    payment, by = facts.payment, facts.payment.outcome_rule
    if by == OutcomeRule.VOIDED:
        return False, "No request can ask for workers that die. This one ends with the same failure code."
    if by == OutcomeRule.ORDER:
        return True, "The order service decides again: the outcome is the same while the order is in the same state."
    if by is None and payment.status is not PaymentStatus.CANCELLED:
        return False, "Nothing is decided yet, so the outcome may be another one."
    if settings.is_simulation_on or by in {OutcomeRule.CARD, OutcomeRule.ADDRESS, OutcomeRule.AMOUNT}:
        return True, None
    if by in {OutcomeRule.CUSTOMER, None}:
        return True, None
    return False, "The setting SIMULATION is off, so no request can choose its outcome: it may be another one."


def _notes(facts: Facts, operations: list[Operation], settings: GatewaySettings, *, is_merchant: bool) -> list[str]:
    reasons = {row.reason for operation in operations for row in operation.rows}
    notes = []
    if settings.checks_orders:
        notes.append("The order service must know the order, and it must wait for a payment.")
    elif facts.payment.status not in NOT_LIVE:
        notes.append("An order is paid once: take another `order_id` each time.")
    if is_merchant and (HistoryReason.CAPTURE_REQUESTED in reasons or facts.refunds):
        notes.append("Only services and admins capture and refund.")
    if HistoryReason.ACTION_EXPIRED in reasons:
        notes.append("Then do not answer at the page of the bank or of PayPal, until the time limit is over.")
    if reasons & {HistoryReason.ACTION_APPROVED, HistoryReason.ACTION_DECLINED} and not settings.is_simulation_on:
        notes.append("The customer answers at the page whose address is in `next_action` of the answer.")
    if HistoryReason.AUTHORIZATION_EXPIRED in reasons:
        notes.append("Then capture nothing, until the authorization is over.")
    if reasons & {HistoryReason.ACTION_EXPIRED, HistoryReason.AUTHORIZATION_EXPIRED} and settings.is_simulation_on:
        notes.append("Instead of waiting, an admin can advance the clock of the simulation.")
    if len(facts.refunds) > REFUNDS_MAX:
        notes.append(f"Only the first {REFUNDS_MAX} refunds are asked for.")
    return notes
