"""Builds the explanation of a payment from what was read. Pure functions: see `shared.explain.read` for the reading."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.database.clock import rfc3339
from shared.explain.again import Again, again
from shared.explain.decided import Decided, decided, decided_refund, steered
from shared.explain.deliveries import delivery_sentences, delivery_values
from shared.explain.draws import Draw, Draws
from shared.explain.facts import Facts, GatewaySettings, Reader, RefundFacts
from shared.explain.operations import Claim, Operation, payment_operations, refund_operation
from shared.explain.timeline import Timeline, timeline_of
from shared.explain.words import (
    CALL_RESULTS,
    LEDGER,
    OPERATIONS,
    PAYMENT_STATUSES,
    REFUND_STATUSES,
    counted,
    duration,
    failed_with,
    moment,
    reason_words,
)
from shared.lifecycle import HistoryReason
from shared.money import format_amount

# The answers of these are not final: the operation may yet be carried out.
_MAY_REPEAT = frozenset({HistoryReason.LEASE_EXPIRED, HistoryReason.RELEASED})
# The gateway did what it was asked to.
_ANSWERED = frozenset({HistoryReason.GATEWAY_APPROVED, HistoryReason.AUTHORIZED, HistoryReason.CAPTURED})


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the words: sentences below a heading, and commands to paste."""

    heading: str
    sentences: list[str]
    commands: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the section as clients see it."""
        return {"heading": self.heading, "sentences": self.sentences, "commands": list(self.commands)}


@dataclass(frozen=True, slots=True)
class _Built:
    """An operation with its key, the draws of each call, and where its time went."""

    operation: Operation
    key: str
    draws: Mapping[int, list[Draw]]


class Explanation:
    """The explanation of one payment, for one reader: `sections` in words, and `to_json` for programs."""

    def __init__(self, facts: Facts, settings: GatewaySettings, reader: Reader) -> None:
        self._facts = facts
        self._settings = settings
        self._reader = reader
        self._draws = Draws(facts, settings)
        operations = payment_operations(facts)
        self._operations = [self._built(each, self._draws.key) for each in operations]
        self._refunds = [self._built_refund(each) for each in facts.refunds]
        first = operations[0]
        drawn = [*self._draws.of_outcome(), *self._rule_draws(), *self._draws.of_gateway()]
        self._decided: Decided = decided(facts, first, drawn)
        self._again: Again = again(facts, operations, [each.operation for each in self._refunds], settings, reader)
        self._time = self._timeline(self._operations)

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as clients see it."""
        facts, reader = self._facts, self._reader
        return {
            "payment_id": str(facts.payment.id),
            "status": facts.payment.status.value,
            "explained_at": rfc3339(facts.now),
            "words": [section.to_json() for section in self.sections()],
            "decision": self._decided.to_json(),
            "operations": [self._operation_json(each) for each in self._operations],
            "has_more_operations": facts.has_more_history,
            "time": self._time.to_json(),
            "refunds": [
                {
                    "id": str(each.refund.id),
                    "status": each.refund.status.value,
                    **self._operation_json(built),
                    "time": self._timeline([built]).to_json(),
                }
                for each, built in zip(facts.refunds, self._refunds, strict=True)
            ],
            "refunds_total": facts.refunds_total,
            "deliveries": delivery_values(facts, reader),
            "has_more_deliveries": facts.deliveries.has_more,
            "again": self._again.to_json(),
            **({"seed_key": self._draws.key} if reader.is_admin else {}),
        }

    def sections(self) -> list[Section]:
        """Return the words of the explanation."""
        facts = self._facts
        commands = tuple(each.curl for each in self._again.requests)
        sections = [
            Section("In short", self._summary()),
            Section("What decided", self._decided.sentences),
            *(
                Section(OPERATIONS[each.operation.name].capitalize(), self._operation_sentences(each))
                for each in self._operations
            ),
            Section("Where the time went", _time_sentences(self._time)),
        ]
        if facts.has_more_history:
            said = f"The history is longer. Its first {len(facts.history)} rows are explained."
            sections.append(Section("More history", [said]))
        for one, built in zip(facts.refunds, self._refunds, strict=True):
            sections.append(Section(f"Refund {one.earlier + 1}", self._refund_sentences(one, built)))
        if facts.refunds_total > len(facts.refunds):
            said = f"There are {counted(facts.refunds_total, 'refund')}. The first {len(facts.refunds)} are shown."
            sections.append(Section("More refunds", [said]))
        sections.append(Section("Notifications", delivery_sentences(facts, self._reader)))
        sections.append(Section("The same outcome again", self._again.sentences, commands))
        if self._reader.is_admin:
            said = f'The random numbers are drawn for the key "{self._draws.key}".'
            sections.append(Section("For admins", [said]))
        return sections

    def _rule_draws(self) -> list[Draw]:
        # What a rule is for is nothing that others see.
        return self._draws.of_rule() if self._reader.is_admin else []

    def _summary(self) -> list[str]:
        payment = self._facts.payment
        said = (
            f"The payment of {format_amount(payment.amount, payment.currency)} for the order {payment.order_id} is "
            f"{payment.status}: {PAYMENT_STATUSES[payment.status]}."
        )
        if payment.failure_code is None:
            return [said]
        return [said, f"It failed with {failed_with(payment.failure_code)}."]

    def _refund_sentences(self, one: RefundFacts, built: _Built) -> list[str]:
        refund, currency = one.refund, self._facts.payment.currency
        said = (
            f"The refund of {format_amount(refund.amount, currency)} is {refund.status}: "
            f"{REFUND_STATUSES[refund.status]}."
        )
        code = refund.failure_code
        failed = [f"It failed with {failed_with(code)}."] if code else []
        time = _time_sentences(self._timeline([built]))
        return [said, *failed, *decided_refund(built.operation), *self._operation_sentences(built), *time]

    def _operation_sentences(self, built: _Built) -> list[str]:
        operation, currency = built.operation, self._facts.payment.currency
        sentences = []
        for row in operation.rows:
            claim = operation.claim_of(row)
            worker = claim.worker if claim and self._reader.is_admin else None
            said = [reason_words(operation.name, row.reason, worker=worker)]
            if claim is not None:
                said += [*_of_call(claim, operation), *(draw.words for draw in built.draws.get(claim.number, []))]
            sentences.append(f"At {moment(row.at)}: {' '.join(said)}")
        sentences += steered(operation)
        sentences += [
            f"The gateway's own ledger says: {format_amount(entry.amount, currency)} {LEDGER[entry.kind]} at "
            f"{moment(entry.at)}."
            for entry in operation.ledger
        ]
        if not operation.ledger and operation.claims:
            sentences.append("The gateway's own ledger has nothing of it.")
        return sentences

    def _operation_json(self, built: _Built) -> dict[str, Any]:
        operation, is_admin = built.operation, self._reader.is_admin
        return {
            "operation": operation.name,
            "amount": operation.amount,
            "currency": self._facts.payment.currency,
            "history": [{"reason": row.reason, "at": rfc3339(row.at)} for row in operation.rows],
            "claims": [
                {
                    "number": claim.number,
                    "reason": claim.row.reason,
                    "claimed_at": rfc3339(claim.row.at),
                    "ended_with": claim.ended.reason if claim.ended else None,
                    "ended_at": rfc3339(claim.ended.at) if claim.ended else None,
                    "call": _call_json(claim, built.draws.get(claim.number, [])),
                    **({"worker": claim.worker} if is_admin else {}),
                }
                for claim in operation.claims
            ],
            "ledger": [
                {
                    "kind": entry.kind.value,
                    "amount": entry.amount,
                    "at": rfc3339(entry.at),
                    "gateway": entry.answer.get("gateway"),
                    "gateway_transaction_id": entry.answer.get("transaction_id"),
                    "failure_code": entry.answer.get("failure_code"),
                    "outcome_rule": entry.answer.get("outcome_rule"),
                    **({"key": entry.key} if is_admin else {}),
                }
                for entry in operation.ledger
            ],
        }

    def _built(self, operation: Operation, key: str) -> _Built:
        draws = {
            claim.number: self._draws.of_call(
                operation, claim.call, key, is_pending=claim.ended.reason == HistoryReason.GATEWAY_PENDING
            )
            for claim in operation.claims
            # What a claim may do again is not foretold.
            if claim.call and claim.ended and claim.ended.reason not in _MAY_REPEAT
        }
        return _Built(operation, key, draws)

    def _built_refund(self, one: RefundFacts) -> _Built:
        key = self._draws.refund_key(one.earlier, str(one.refund.id))
        return self._built(refund_operation(self._facts, one), key)

    def _timeline(self, built: list[_Built]) -> Timeline:
        keys = {each.operation.name: each.key for each in built}

        def delay_ms(operation: Operation, claim: Claim) -> int:
            call = claim.call
            return 0 if call is None else self._draws.delay_ms(operation, call, keys[operation.name])

        operations = [each.operation for each in built]
        return timeline_of(operations, delay_ms, backoff_s=self._settings.backoff_s, now=self._facts.now)


def _of_call(claim: Claim, operation: Operation) -> list[str]:
    """Return what became of the call of a claim, where the row after it does not say it."""
    if claim.call is None:
        return ["The gateway was asked for nothing new."]
    number = claim.call.number
    if claim.ended is None:
        return [f"It is to make call {number} to the gateway, and goes on."]
    if claim.ended.reason in _MAY_REPEAT:
        return [f"It was to make call {number} to the gateway. {CALL_RESULTS[claim.ended.reason]}"]
    made = f"Call {number} to the gateway was made."
    is_found = operation.ledger and operation.ledger[-1].at <= claim.row.at
    if is_found and claim.ended.reason in _ANSWERED:
        return [made, "The gateway had done it before, and its ledger said so."]
    return [made, *([CALL_RESULTS[claim.ended.reason]] if claim.ended.reason in CALL_RESULTS else [])]


def _call_json(claim: Claim, draws: list[Draw]) -> dict[str, Any] | None:
    call = claim.call
    if call is None:
        return None
    remark = call.remark or {}
    return {
        "number": call.number,
        "steered_by": remark.get("by"),
        "outcome": remark.get("outcome"),
        "delay_ms": remark.get("delay_ms"),
        "pace": remark.get("pace"),
        "draws": [draw.to_json() for draw in draws],
    }


def _time_sentences(timeline: Timeline) -> list[str]:
    if not timeline.parts:
        return ["It took no time that could be measured."]
    return [f"It took {duration(timeline.total_ms)}.", *(part.words for part in timeline.parts)]
