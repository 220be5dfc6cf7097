"""The payment method of an intent: who may pay with it, and what a payment copies from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.id_list import id_in
from shared.database.tables import payment_methods
from shared.errors import CaptureMethodUnusable, OlderWorkers, PaymentMethodUnusable, Refused
from shared.lifecycle import CaptureMethod, FailureCode, MethodType
from shared.payments.intent import Intent
from shared.simulation.calls import NOT_STEERED
from shared.simulation.scenarios import Scenario, scenario_members


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRules:
    """What an installation knows of payment methods.

    `scenarios` has the scenario of each known test number and address by its fingerprint. While a worker of 0.1 is
    alive, no payment is accepted that such a worker would charge otherwise than this version.
    """

    scenarios: Mapping[str, Scenario]
    has_workers_of_0_1: Callable[[], bool]


async def copy_usable_methods(
    connection: AsyncConnection, intents: Sequence[Intent], rules: MethodRules, *, now: datetime
) -> list[dict[str, Any] | Refused]:
    """Return for each intent the copy of its payment method that the payment keeps, or why it cannot be used.

    A refusal is PaymentMethodUnusable, CaptureMethodUnusable or OlderWorkers.
    """
    methods = await _methods_by_id(connection, intents)
    has_workers_of_0_1 = rules.has_workers_of_0_1()
    answers: list[dict[str, Any] | Refused] = []
    for intent in intents:
        copied = (
            intent.ready_made.copy_for_payment()
            if intent.ready_made is not None
            else _copy(methods.get(intent.payment_method_id), intent, rules.scenarios, now)
        )
        if isinstance(copied, Refused):
            answers.append(copied)
        elif intent.capture_method is CaptureMethod.MANUAL and copied["type"] == MethodType.DEBIT_CARD:
            answers.append(CaptureMethodUnusable())
        elif has_workers_of_0_1 and (unknown := _unknown_to_0_1(intent, copied)):
            answers.append(OlderWorkers(unknown))
        else:
            answers.append(copied)
    return answers


def _copy(
    method: RowMapping | None, intent: Intent, scenarios: Mapping[str, Scenario], now: datetime
) -> dict[str, Any] | PaymentMethodUnusable:
    if method is None or method["user_id"] != intent.user_id:
        return PaymentMethodUnusable("This user has no such payment method. Choose or add another one.")
    if method["expires_at"] is not None and method["expires_at"] <= now:
        return PaymentMethodUnusable("This payment method has expired. Choose or add another one.")
    return {
        "type": method["type"],
        "details": method["details"],
        **scenario_members(scenario_of(method["fingerprint"], method["scenario"], scenarios)),
    }


_KNOWN_TO_0_1 = {"type", "details", "scenario"}


def _unknown_to_0_1(intent: Intent, copied: Mapping[str, Any]) -> str | None:
    """Return what a worker of 0.1 would do wrong with such a payment, as OlderWorkers names it; None if nothing."""
    if intent.capture_method is CaptureMethod.MANUAL:
        return "manual captures"
    if intent.return_url is not None:
        return "approvals by customers"
    if intent.steering != NOT_STEERED:
        return "a steered simulation"
    knows_method = intent.ready_made is None and copied.keys() == _KNOWN_TO_0_1
    return None if knows_method else "this test value"


async def _methods_by_id(connection: AsyncConnection, intents: Sequence[Intent]) -> dict[UUID, RowMapping]:
    wanted = {intent.payment_method_id for intent in intents if intent.ready_made is None}
    if not wanted:
        return {}
    found = await connection.execute(
        select(payment_methods).where(id_in(payment_methods.c.id, wanted), payment_methods.c.is_active)
    )
    return {row["id"]: row for row in found.mappings()}


def scenario_of(fingerprint: str, stored: str | None, scenarios: Mapping[str, Scenario]) -> Scenario | None:
    """Return the scenario by the fingerprint: a method that an older version added behaves like a new one.

    `stored` is what remains of a method that was added before DATA_KEY was changed.
    """
    known = scenarios.get(fingerprint)
    return Scenario(FailureCode(stored)) if known is None and stored else known
