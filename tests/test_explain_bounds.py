"""What an explanation leaves out: what has not happened yet, what a rule is for, and what is beyond its bounds."""

from datetime import timedelta

import pytest

from shared.explain.read import HISTORY_MAX, REFUNDS_MAX
from shared.ids import new_id
from shared.refund_lifecycle import RefundReason
from shared.refunds.requests import RefundMoved, RefundRequest, request_refund
from shared.simulation.calls import Steering
from shared.simulation.rule_store import add_rule
from shared.simulation.rules import Match
from tests.support.endings import RULE, clock, life, opened, paid
from tests.support.explained import ADMIN, Life, sentences_of
from tests.support.rows import claimed, write
from tests.support.rules import rule

__all__ = ["clock", "life", "opened"]


async def test_what_a_claim_may_do_again_is_not_foretold(life: Life) -> None:
    payment_id = await life.accepts()
    await life.works_once(payment_id, dies=True)
    for _ in range(2):
        shown = (await life.explained(payment_id, ADMIN)).to_json()
        assert [claim["call"]["draws"] for claim in shown["operations"][0]["claims"]] == [[]] * len(
            shown["operations"][0]["claims"]
        )
        assert shown["decision"]["draws"] == []
        await life.works_once(payment_id, dies=True)


async def test_only_admins_see_what_the_rule_that_fired_is_for(life: Life) -> None:
    async with life.database.transaction() as connection:
        match = Match(percent=97.5, order_id="rule-*")
        later = life.clock.moment + timedelta(days=1)
        await add_rule(
            connection,
            rule(match, id=RULE.rule_id, name=RULE.name, created_at=life.clock.moment, expires_at=later),
        )
        # One that does not fire.
        await add_rule(connection, rule(name="another", created_at=life.clock.moment))
    payment_id = await paid(order_id="rule-1")(life)
    for_owner, for_admin = await life.explained(payment_id), await life.explained(payment_id, ADMIN)
    shown, whole = for_owner.to_json(), for_admin.to_json()
    [effect] = shown["decision"]["rule"]["effect"]
    assert (
        shown["decision"]["rule"]
        == whole["decision"]["rule"]
        == {
            "id": str(RULE.rule_id),
            "name": "issuer-down",
            "effect": [effect],
        }
    )
    assert effect == {"call": 1, "outcome": "insufficient_funds", "delay_ms": 10, "pace": None}
    drawn = [draw for draw in whole["decision"]["draws"] if draw["purpose"] == "rule"]
    assert [draw["threshold"] for draw in drawn] == [0.975]
    assert [draw for draw in shown["decision"]["draws"] if draw["purpose"] == "rule"] == []
    # A draw may begin with 0.975 by chance.
    for hidden in ("another", "rule-*", ": 97.5,", ": 0.975,", ": 0.975}"):
        assert hidden not in str(shown), hidden


async def test_no_more_refunds_than_fit_are_shown_and_their_number_is_said(life: Life) -> None:
    payment_id = await paid("approve", amount=10_000)(life)
    async with life.database.transaction() as connection:
        for _ in range(REFUNDS_MAX + 1):
            asked = RefundRequest(
                id=new_id(), amount=10, reason=RefundReason.OTHER, metadata={}, created_by="service:shop",
                correlation_id=None, steering=Steering(),
            )  # fmt: skip
            moved = await request_refund(connection, payment_id, asked, now=life.clock.moment)
            assert isinstance(moved, RefundMoved)
    explanation = await life.explained(payment_id)
    shown = explanation.to_json()
    assert (len(shown["refunds"]), shown["refunds_total"]) == (REFUNDS_MAX, REFUNDS_MAX + 1)
    assert "There are 51 refunds. The first 50 are shown." in sentences_of(explanation)
    assert "Only the first 5 refunds are asked for." in sentences_of(explanation)


@pytest.mark.parametrize(("claims", "has_more"), [(HISTORY_MAX - 1, False), (HISTORY_MAX, True)])
async def test_no_more_history_than_fits_is_shown(life: Life, claims: int, has_more: bool) -> None:
    payment = claimed(life.clock.moment, claims=claims)
    await write(life.database, payment)
    explanation = await life.explained(payment.id)
    said = "The history is longer. Its first 500 rows are explained."
    assert (said in sentences_of(explanation)) is has_more
    shown = explanation.to_json()
    assert (len(shown["operations"][0]["history"]), shown["has_more_operations"]) == (HISTORY_MAX, has_more)
