"""Which rule fires on a call, what it makes of it, and why every other one does not."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared.lifecycle import MethodType
from shared.simulation.calls import CallOperation
from shared.simulation.gateways import GatewayName
from shared.simulation.matching import fired_by, fires_on, judge_all, reasons_against, unfit_outcomes
from shared.simulation.rules import Effect, Match, Outage, Pace, RuleState, Span, read_effect, read_fired, read_match
from tests.support.rules import NOW, SEED, call, rule

DRAWS = 4_000


def reasons(match: Match, **changes: Any) -> list[str]:
    return list(reasons_against(rule(match), call(**changes), seed=SEED, now=NOW))


@pytest.mark.parametrize(
    ("match", "other", "reason"),
    [
        (Match(user_id="1"), {"user_id": "2"}, '"user_id" is "2"; the rule wants "1".'),
        (Match(order_id="shop-7"), {"order_id": "shop-70"}, '"order_id" is "shop-70"; the rule wants "shop-7".'),
        (Match(order_id="shop-*"), {"order_id": "sho"}, '"order_id" is "sho"; the rule wants "shop-*".'),
        (
            Match(method_type=MethodType.CREDIT_CARD),
            {"method_type": MethodType.PAYPAL},
            '"method_type" is "PAYPAL"; the rule wants "CREDIT_CARD".',
        ),
        (Match(brand="visa"), {"brand": None}, '"brand" is absent; the rule wants "visa".'),
        (Match(last4="4242"), {"last4": "0002"}, '"last4" is "0002"; the rule wants "4242".'),
        (Match(currency="USD"), {"currency": "EUR"}, '"currency" is "EUR"; the rule wants "USD".'),
        (Match(amount=Span(min=1585, max=1585)), {"amount": 1586}, '"amount" is 1586; the rule wants 1585.'),
        (Match(amount=Span(min=1585)), {"amount": 1584}, '"amount" is 1584; the rule wants 1585 or more.'),
        (Match(amount=Span(max=1585)), {"amount": 1586}, '"amount" is 1586; the rule wants 1585 or less.'),
        (Match(amount=Span(min=1, max=1585)), {"amount": 1586}, '"amount" is 1586; the rule wants 1 to 1585.'),
        (
            Match(metadata={"channel": "web"}),
            {"metadata": {"channel": "app"}},
            '"metadata.channel" is "app"; the rule wants "web".',
        ),
        (Match(metadata={"channel": "web"}), {"metadata": {}}, '"metadata.channel" is absent; the rule wants "web".'),
        (
            Match(gateway=GatewayName.STRIPE),
            {"gateway": "square_mock"},
            '"gateway" is "square_mock"; the rule wants "stripe_mock".',
        ),
        (
            Match(operation=CallOperation.CHARGE),
            {"operation": CallOperation.AUTHORIZE},
            '"operation" is "authorize"; the rule wants "charge".',
        ),
    ],
)
def test_each_member_of_a_match_decides_and_the_reason_names_it(
    match: Match, other: dict[str, Any], reason: str
) -> None:
    assert reasons(match) == []
    assert reasons(match, **other) == [reason]


def test_every_difference_is_a_reason() -> None:
    match = Match(user_id="2", currency="EUR", amount=Span(max=100), metadata={"channel": "app", "shop": "7"})
    assert [reason.split(" ")[0] for reason in reasons(match)] == [
        '"user_id"', '"currency"', '"amount"', '"metadata.channel"', '"metadata.shop"',
    ]  # fmt: skip


def test_a_rule_that_has_ended_says_why() -> None:
    used_up = rule(times=2, used=2)
    expired = rule(expires_at=NOW)
    assert list(reasons_against(used_up, call(), seed=SEED, now=NOW)) == ["It has fired 2 of 2 times."]
    [reason] = reasons_against(expired, call(), seed=SEED, now=NOW)
    assert reason.startswith("It expired at 20")
    assert (used_up.state(NOW), expired.state(NOW)) == (RuleState.USED_UP, RuleState.EXPIRED)
    before = NOW - timedelta(milliseconds=1)
    assert (expired.state(before), fires_on(expired, call(), seed=SEED, now=before)) == (RuleState.ACTIVE, True)


def test_a_call_whose_operation_does_not_know_the_next_outcome_is_not_fired_on() -> None:
    fails_twice = rule(effect=Effect(outcomes=("network_error", "card_declined")))
    of_refund = call(operation=CallOperation.REFUND, number=1)
    assert fires_on(fails_twice, of_refund, seed=SEED, now=NOW)
    [reason] = reasons_against(fails_twice, replace(of_refund, number=3), seed=SEED, now=NOW)
    assert reason == '"outcomes" has "card_declined" for call 3, which is no outcome of a refund.'


def test_the_newest_rule_that_matches_fires_alone() -> None:
    newest, of_euros, older = rule(name="newest"), rule(Match(currency="EUR")), rule()
    judged = judge_all([of_euros, newest, older], call(), seed=SEED, now=NOW)
    assert [each.rule for each in judged if not each.reasons] == [newest]
    assert judged[2].reasons == (f'A newer rule fires: "newest" ({newest.id}).',)


# -- what is drawn


def test_percent_is_that_part_of_the_operations_and_the_same_for_every_call_of_one() -> None:
    tenth = rule(Match(percent=10))
    calls = [call(seed_key=f"order-{number}") for number in range(DRAWS)]
    hit = [each for each in calls if fires_on(tenth, each, seed=SEED, now=NOW)]
    assert len(hit) / DRAWS == pytest.approx(0.1, abs=0.02)
    assert all(fires_on(tenth, replace(each, number=2), seed=SEED, now=NOW) for each in hit)
    # Another id in another run: the name counts.
    again = rule(Match(percent=10))
    assert [each for each in calls if fires_on(again, each, seed=SEED, now=NOW)] == hit
    assert [each for each in calls if fires_on(again, each, seed="another", now=NOW)] != hit
    other_name = rule(Match(percent=10), name="other")
    assert [each for each in calls if fires_on(other_name, each, seed=SEED, now=NOW)] != hit
    # Else no capture would ever be hit: those of the payments that were hit do not come that far.
    captures = [replace(each, operation=CallOperation.CAPTURE) for each in calls if each not in hit]
    rates = rule(Match(percent=10), Effect(outcomes=("network_error",)))
    hit_captures = sum(fires_on(rates, each, seed=SEED, now=NOW) for each in captures)
    assert hit_captures / len(captures) == pytest.approx(0.1, abs=0.02)


def test_the_reason_of_a_draw_has_its_number_and_its_threshold() -> None:
    missed = next(
        found
        for number in range(100)
        if (found := list(reasons_against(rule(Match(percent=12.5)), call(seed_key=f"{number}"), seed=SEED, now=NOW)))
    )
    assert missed[0].startswith('"percent" is 12.5; the number drawn for this charge is ')


def test_a_hundred_percent_is_every_operation() -> None:
    every = rule(Match(percent=100))
    assert all(fires_on(every, call(seed_key=f"{number}"), seed=SEED, now=NOW) for number in range(DRAWS))


def test_a_delay_is_drawn_between_its_bounds_for_each_call() -> None:
    slow = rule(effect=Effect(delay_ms=Span(min=100, max=102)))
    drawn = [fired_by(slow, call(seed_key=f"{number}"), seed=SEED).delay_ms for number in range(DRAWS)]
    assert set(drawn) == {100, 101, 102}
    of_calls = [fired_by(slow, call(seed_key="1", number=number), seed=SEED).delay_ms for number in range(1, 20)]
    assert len(set(of_calls)) > 1
    assert fired_by(rule(effect=Effect(delay_ms=Span(min=7, max=7))), call(), seed=SEED).delay_ms == 7


# -- what a rule makes of a call


def test_outages() -> None:
    unavailable, slow, timeout = (rule(effect=Effect(outage=kind)) for kind in (
        Outage.UNAVAILABLE, Outage.SLOW, Outage.TIMEOUT
    ))  # fmt: skip
    fired = fired_by(unavailable, call(), seed=SEED)
    assert (fired.outcomes, fired.pace) == (("network_error",), Pace.AT_ONCE)
    assert (fired.rule_id, fired.outcome_rule) == (unavailable.id, f"rule:{unavailable.id}")
    fired = fired_by(slow, call(), seed=SEED)
    assert (fired.outcomes, fired.delay_ms, fired.pace) == ((), None, Pace.SLOW)
    lost = [fired_by(timeout, call(seed_key=f"{number}"), seed=SEED) for number in range(DRAWS)]
    assert {each.pace for each in lost} == {Pace.LONGEST}
    counts = Counter(each.outcomes for each in lost)
    assert set(counts) == {("timeout_charged",), ("timeout_not_charged",)}
    assert counts["timeout_charged",] / DRAWS == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("kind", Outage)
@pytest.mark.parametrize("operation", CallOperation)
def test_an_outage_is_one_of_every_operation(kind: Outage, operation: CallOperation) -> None:
    assert fires_on(rule(effect=Effect(outage=kind)), call(operation=operation), seed=SEED, now=NOW)


# -- which outcomes fit


def test_outcomes_fit_the_operation_of_the_match_or_any_operation() -> None:
    assert unfit_outcomes(Effect(outcomes=("lost_card", "approve", "timeout_charged")), Match()) == {}
    assert unfit_outcomes(Effect(outcomes=("refund_declined",)), Match(operation=CallOperation.REFUND)) == {}
    unfit = unfit_outcomes(Effect(outcomes=("approve", "lost_card")), Match(operation=CallOperation.REFUND))
    assert list(unfit) == [1]
    assert unfit[1].startswith("is no outcome of a refund: it must be one of approve, network_error, ")
    assert list(unfit_outcomes(Effect(outcomes=("nonsense", "approve")), Match())) == [0]
    assert unfit_outcomes(Effect(outcomes=("lost_card", "refund_declined")), Match()) == {
        None: "must all be outcomes of one operation: no operation has all of these"
    }


# -- the stored forms


@pytest.mark.parametrize(
    "match",
    [
        Match(),
        Match(
            user_id="1",
            order_id="shop-*",
            method_type=MethodType.CREDIT_CARD,
            brand="visa",
            last4="4242",
            currency="USD",
            amount=Span(min=1, max=9),
            metadata={"channel": "web"},
            gateway=GatewayName.SQUARE,
            operation=CallOperation.CAPTURE,
            percent=2.5,
        ),
        Match(amount=Span(min=1)),
        Match(amount=Span(min=5, max=5)),
    ],
)
def test_a_match_is_read_as_it_was_stored(match: Match) -> None:
    assert read_match(match.to_json()) == match


@pytest.mark.parametrize(
    "effect",
    [
        Effect(outcomes=("approve",), delay_ms=Span(min=0, max=0)),
        Effect(delay_ms=Span(min=1, max=2)),
        Effect(outage=Outage.SLOW),
    ],
)
def test_an_effect_is_read_as_it_was_stored(effect: Effect) -> None:
    assert read_effect(effect.to_json()) == effect
    fired = fired_by(rule(effect=effect), call(), seed=SEED)
    assert read_fired(fired.rule_id, fired.to_json()) == fired
