"""The operations of a payment: its history, cut into claims and calls to the gateway. Pure functions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from shared.database.histories import WORKER_NAME
from shared.explain.facts import Facts, HistoryRow, LedgerRow, RefundFacts
from shared.lifecycle import CaptureMethod, FailureCode, HistoryReason, PaymentOperation
from shared.refund_lifecycle import RefundHistoryReason
from shared.simulation.ledger_entries import EntryKind

REFUND = "refund"
# The reasons of claims; those of refunds are among them, under the same words.
CLAIMS = frozenset(
    {
        HistoryReason.CLAIMED,
        HistoryReason.LEASE_EXPIRED,
        HistoryReason.RETRIED,
        HistoryReason.GATEWAY_TIMED_OUT,
        HistoryReason.RELEASED,
        HistoryReason.ORDER_UNREACHABLE,
        HistoryReason.GATEWAY_SETTLED,
        HistoryReason.AUTHORIZATION_EXPIRED,
    }
)
_BEGINS = frozenset(
    {HistoryReason.CAPTURE_REQUESTED, HistoryReason.VOID_REQUESTED, HistoryReason.AUTHORIZATION_EXPIRED}
)
# What comes after a claim that asked the gateway nothing, or only for its record.
_WITHOUT_CALL = frozenset(
    {
        HistoryReason.ORDER_UNREACHABLE,
        HistoryReason.ORDER_REFUSED,
        HistoryReason.ORDER_CHECK_TIMED_OUT,
        HistoryReason.CLAIMS_EXHAUSTED,
    }
)
# What comes after a call that got no answer, and is tried again.
NO_ANSWER = frozenset({HistoryReason.RETRIED, HistoryReason.GATEWAY_TIMED_OUT})
# Why a claim has ended already, although the history says so only with the next one.
_ENDED_SILENTLY = NO_ANSWER | {HistoryReason.ORDER_UNREACHABLE, HistoryReason.RELEASED}


@dataclass(frozen=True, slots=True)
class MadeCall:
    """A call to the gateway. `gateway_try` is what its delay is drawn for, and `remark` what was steered about it."""

    number: int
    gateway_try: int
    remark: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim by a worker; `ended` is the row after it, None while it holds.

    After a claim that waits for the next one, `ended` is what the next row will say, as of now.
    """

    number: int
    row: HistoryRow
    ended: HistoryRow | None
    call: MadeCall | None

    @property
    def worker(self) -> str | None:
        """The worker that claimed; None if its version did not say so. It is for admins."""
        return self.row.metadata.get(WORKER_NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation. `name` is a `PaymentOperation` or REFUND; `pending_ms` is the wait that its request asked for."""

    name: str
    amount: int
    rows: tuple[HistoryRow, ...]
    claims: tuple[Claim, ...]
    ledger: tuple[LedgerRow, ...]
    steering: Mapping[str, Any] | None

    @property
    def is_first(self) -> bool:
        """It is the charge or the authorization of the payment."""
        return self.name in {PaymentOperation.CHARGE, PaymentOperation.AUTHORIZE}

    @property
    def remarks(self) -> list[Mapping[str, Any]]:
        """What was steered about its calls, in their order."""
        return [claim.call.remark for claim in self.claims if claim.call and claim.call.remark]

    @property
    def end(self) -> HistoryRow | None:
        """The row that ended it; None if it goes on."""
        last = self.rows[-1]
        is_open = last.reason in CLAIMS or last.reason in _BEGINS or last.reason in _GOES_ON
        return None if is_open else last

    def claim_of(self, row: HistoryRow) -> Claim | None:
        """Return the claim that a row is."""
        return next((claim for claim in self.claims if claim.row is row), None)


_GOES_ON = frozenset(
    {
        HistoryReason.ACCEPTED,
        HistoryReason.GATEWAY_PENDING,
        HistoryReason.ACTION_REQUIRED,
        HistoryReason.ACTION_APPROVED,
        RefundHistoryReason.REQUESTED,
    }
)


def payment_operations(facts: Facts) -> list[Operation]:
    """Return the operations of the payment itself, in their order."""
    payment, groups = facts.payment, _groups(facts.history)
    steered = _last_asked(groups)
    operations = []
    for index, rows in enumerate(groups):
        name = _name(rows[0], payment.capture_method)
        named = [each for each in payment.simulated or () if each["operation"] == name]
        is_only = sum(_name(group[0], payment.capture_method) == name for group in groups) == 1
        ledger = tuple(_ledger_of(facts.ledger, rows[0], name, has_void=_has_void(groups)))
        operations.append(
            Operation(
                name=name,
                amount=rows[0].metadata.get("amount", payment.amount) if name == "capture" else payment.amount,
                rows=tuple(rows),
                # Several captures number their calls alike: then only the ledger says what was steered.
                claims=tuple(
                    _claims(
                        rows,
                        named if is_only else _in_ledger(ledger),
                        is_refund=False,
                        then=_next_row(rows, payment.due_reason, facts.now),
                    )
                ),
                ledger=ledger,
                steering=payment.steering if index == steered else None,
            )
        )
    return operations


def refund_operation(facts: Facts, refund: RefundFacts) -> Operation:
    """Return a refund as an operation."""
    one = refund.refund
    return Operation(
        name=REFUND,
        amount=one.amount,
        rows=refund.history,
        claims=tuple(
            _claims(
                refund.history,
                one.simulated or (),
                is_refund=True,
                then=_next_row(refund.history, one.due_reason, facts.now),
            )
        ),
        ledger=tuple(entry for entry in facts.ledger if entry.number == one.number),
        steering=one.steering,
    )


def _groups(history: Sequence[HistoryRow]) -> list[list[HistoryRow]]:
    groups: list[list[HistoryRow]] = []
    for row in history:
        if not groups or row.reason in _BEGINS:
            groups.append([])
        groups[-1].append(row)
    return groups


def _last_asked(groups: Sequence[Sequence[HistoryRow]]) -> int:
    """Return the number of the operation whose steering the payment still has: the last one that was asked for."""
    is_own = bool(groups) and groups[-1][0].reason == HistoryReason.AUTHORIZATION_EXPIRED
    return len(groups) - (2 if is_own else 1)


def _name(begun: HistoryRow, capture_method: str | None) -> str:
    match begun.reason:
        case HistoryReason.CAPTURE_REQUESTED:
            return PaymentOperation.CAPTURE.value
        case HistoryReason.VOID_REQUESTED | HistoryReason.AUTHORIZATION_EXPIRED:
            return PaymentOperation.VOID.value
        case _:
            is_manual = capture_method == CaptureMethod.MANUAL
            return (PaymentOperation.AUTHORIZE if is_manual else PaymentOperation.CHARGE).value


def _has_void(groups: Sequence[Sequence[HistoryRow]]) -> bool:
    return any(_name(group[0], None) == PaymentOperation.VOID for group in groups)


def _ledger_of(ledger: Iterable[LedgerRow], begun: HistoryRow, name: str, *, has_void: bool) -> Iterable[LedgerRow]:
    for entry in ledger:
        if name == PaymentOperation.CAPTURE:
            is_of = entry.number == begun.sequence
        elif name == PaymentOperation.VOID:
            is_of = entry.kind is EntryKind.VOID
        else:
            is_of = entry.number is None and not (has_void and entry.kind is EntryKind.VOID)
        if is_of:
            yield entry


def _in_ledger(ledger: Iterable[LedgerRow]) -> list[Mapping[str, Any]]:
    return [entry.answer["remark"] for entry in ledger if entry.answer.get("remark")]


def _next_row(rows: Sequence[HistoryRow], due_reason: str | None, now: datetime) -> HistoryRow | None:
    """Return the row that the next claim will write, if the last one has ended; None if it holds or there is none."""
    last = rows[-1]
    if last.reason not in CLAIMS or due_reason not in _ENDED_SILENTLY:
        return None
    return replace(last, sequence=last.sequence + 1, reason=due_reason, metadata={}, at=now)


def _claims(
    rows: Sequence[HistoryRow], simulated: Sequence[Mapping[str, Any]], *, is_refund: bool, then: HistoryRow | None
) -> Iterable[Claim]:
    earlier = tries = 0
    for row, ended in zip(rows, [*rows[1:], then], strict=True):
        reason = row.reason
        if reason in NO_ANSWER:
            tries += 1
        elif reason == HistoryReason.GATEWAY_PENDING:
            # A refund counts the call as a try; a payment counts its tries anew.
            earlier, tries = (earlier, tries + 1) if is_refund else (earlier + tries + 1, 0)
        elif reason == HistoryReason.ACTION_REQUIRED:
            earlier, tries = earlier + tries, 0
        if reason in CLAIMS:
            call = _call(earlier + tries + 1, tries, ended, simulated)
            yield Claim(row.metadata.get("attempt", 0), row, ended, call)


def _call(
    number: int, gateway_try: int, ended: HistoryRow | None, simulated: Sequence[Mapping[str, Any]]
) -> MadeCall | None:
    if ended is not None and ended.reason in _WITHOUT_CALL:
        return None
    of_call = [each for each in simulated if each["call"] == number]
    asks = ended is not None and ended.reason == HistoryReason.ACTION_REQUIRED
    if not asks:
        # The call that asked the customer has the number of the call that counts.
        of_call = [each for each in of_call if each["outcome"] != FailureCode.AUTHENTICATION_REQUIRED] or of_call
    return MadeCall(number, gateway_try, of_call[0 if asks else -1] if of_call else None)
