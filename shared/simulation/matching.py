"""Matches rules to calls: which rule fires, what it does, and why every other one does not. Pure functions.

The worker's gateway and the test of rules go through the same functions, so that the test says what will happen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from shared.simulation.calls import Call, CallOperation, CallOutcome, outcomes_of
from shared.simulation.decisions import outcome_at
from shared.simulation.rules import PREFIX_END, Effect, Fired, Match, Outage, Pace, Rule, Span
from shared.simulation.seeded_random import fraction

# Of the calls during an outage of the kind `timeout`, the part that is carried out.
CHARGED_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Judged:
    """A rule, and why it does not fire on a call. Without a reason it fires."""

    rule: Rule
    reasons: tuple[str, ...]


def fires_on(rule: Rule, call: Call, *, seed: str, now: datetime) -> bool:
    """Return whether the rule fires on the call, unless a newer one does."""
    return next(reasons_against(rule, call, seed=seed, now=now), None) is None


def judge_all(rules: Sequence[Rule], call: Call, *, seed: str, now: datetime) -> list[Judged]:
    """Return for each of the rules, the newest first, why it does not fire on the call. At most one of them fires."""
    judged: list[Judged] = []
    firing: Rule | None = None
    for rule in rules:
        reasons = tuple(reasons_against(rule, call, seed=seed, now=now))
        if not reasons and firing is not None:
            reasons = (f'A newer rule fires: "{firing.name}" ({firing.id}).',)
        elif not reasons:
            firing = rule
        judged.append(Judged(rule, reasons))
    return judged


def reasons_against(rule: Rule, call: Call, *, seed: str, now: datetime) -> Iterator[str]:
    """Return why the rule does not fire on the call: a sentence for each reason, which names the member."""
    if (ended := rule.why_ended(now)) is not None:
        yield ended
    yield from differences(rule.match, call)
    if rule.match.percent is not None:
        drawn = drawn_percent(rule, call, seed=seed)
        if drawn >= rule.match.percent:
            yield f'"percent" is {rule.match.percent:g}; the number drawn for this {call.operation} is {drawn:.2f}.'
    if rule.effect.outcomes:
        wanted = outcome_at(rule.effect.outcomes, call)
        if wanted not in outcomes_of(call.operation):
            yield f'"outcomes" has "{wanted}" for call {call.number}, which is no outcome of {_a(call.operation)}.'


def differences(match: Match, call: Call) -> Iterator[str]:
    """Return a sentence for each member of the match in which the call differs; the percentage is not among them."""
    for member, wanted in match.exact:
        if wanted != (found := getattr(call, member)):
            yield _differs(member, found, f'"{wanted}"')
    if match.order_id is not None and not _is_order(match.order_id, call.order_id):
        yield _differs("order_id", call.order_id, f'"{match.order_id}"')
    if match.amount is not None and not _is_within(match.amount, call.amount):
        yield f'"amount" is {call.amount}; the rule wants {_bounds(match.amount)}.'
    for key, wanted_text in match.metadata.items():
        if call.metadata.get(key) != wanted_text:
            yield _differs(f"metadata.{key}", call.metadata.get(key), f'"{wanted_text}"')


def drawn_percent(rule: Rule, call: Call, *, seed: str) -> float:
    """Return the number, from 0 to 100, that decides whether the operation is among the percent of the rule.

    It is the same for every call of the operation. It depends on the rule's name and not on its id, which differs
    between runs with the same seed. The operation is part of it: otherwise the captures of those payments would be
    spared whose authorization was, and the rule would never be seen in a capture.
    """
    return 100 * fraction(seed, call.seed_key, "rule", rule.name, call.operation)


def fired_by(rule: Rule, call: Call, *, seed: str) -> Fired:
    """Return what the rule makes of a call on which it fires."""
    effect = rule.effect
    match effect.outage:
        case None:
            return Fired(
                rule_id=rule.id,
                name=rule.name,
                outcomes=effect.outcomes,
                delay_ms=_drawn_delay_ms(rule, call, seed) if effect.delay_ms else None,
            )
        case Outage.UNAVAILABLE:
            outcomes: tuple[str, ...] = (CallOutcome.NETWORK_ERROR.value,)
            return Fired(rule_id=rule.id, name=rule.name, outcomes=outcomes, pace=Pace.AT_ONCE)
        case Outage.TIMEOUT:
            is_charged = _drawn(rule, call, seed, "charged") < CHARGED_SHARE
            lost = CallOutcome.TIMEOUT_CHARGED if is_charged else CallOutcome.TIMEOUT_NOT_CHARGED
            return Fired(rule_id=rule.id, name=rule.name, outcomes=(lost.value,), pace=Pace.LONGEST)
        case Outage.SLOW:
            return Fired(rule_id=rule.id, name=rule.name, pace=Pace.SLOW)
        case _:
            assert_never(effect.outage)


def unfit_outcomes(effect: Effect, match: Match) -> dict[int | None, str]:
    """Return why outcomes do not fit the operations of the match, by their index; None = all of them together."""
    operations = [match.operation] if match.operation else list(CallOperation)
    known = {operation: outcomes_of(operation) for operation in operations}
    subject = f"of {_a(match.operation)}" if match.operation else "of any operation"
    unknown: dict[int | None, str] = {
        index: f"is no outcome {subject}: it must be one of {', '.join(_all_outcomes(operations))}"
        for index, outcome in enumerate(effect.outcomes)
        if not any(outcome in outcomes for outcomes in known.values())
    }
    if not unknown and not any(set(effect.outcomes) <= set(outcomes) for outcomes in known.values()):
        unknown[None] = "must all be outcomes of one operation: no operation has all of these"
    return unknown


def _all_outcomes(operations: Sequence[CallOperation]) -> list[str]:
    return list(dict.fromkeys(outcome for operation in operations for outcome in outcomes_of(operation)))


def _drawn_delay_ms(rule: Rule, call: Call, seed: str) -> int:
    span = rule.effect.delay_ms or Span()
    least, most = span.min or 0, span.max or 0
    return least + int(_drawn(rule, call, seed, "delay") * (most - least + 1))


def _drawn(rule: Rule, call: Call, seed: str, purpose: str) -> float:
    """Return a number in [0, 1) for one call."""
    return fraction(seed, call.seed_key, "rule", rule.name, call.operation, purpose, call.number)


def _is_order(wanted: str, order_id: str) -> bool:
    if wanted.endswith(PREFIX_END):
        return order_id.startswith(wanted.removesuffix(PREFIX_END))
    return order_id == wanted


def _is_within(span: Span, amount: int) -> bool:
    return (span.min is None or amount >= span.min) and (span.max is None or amount <= span.max)


def _bounds(span: Span) -> str:
    if span.min is not None and span.max is not None:
        return str(span.min) if span.min == span.max else f"{span.min} to {span.max}"
    return f"{span.min} or more" if span.min is not None else f"{span.max} or less"


def _differs(member: str, found: str | None, wanted: str) -> str:
    return f'"{member}" is {"absent" if found is None else f'"{found}"'}; the rule wants {wanted}.'


def _a(operation: CallOperation) -> str:
    return "an authorization" if operation is CallOperation.AUTHORIZE else f"a {operation}"
