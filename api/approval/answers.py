"""The answers of customers: the form that a page sends, and what becomes of the payment."""

from datetime import datetime
from hmac import compare_digest
from typing import NamedTuple

import structlog
from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncConnection

from api.approval.links import Approval
from api.forms import read_fields
from api.problems import Code, Problem, found_or_404
from api.state import Api
from shared.errors import OlderWorkers
from shared.lifecycle import ActionResult
from shared.payments.payment import Payment
from shared.payments.requests import Requested, answer_action

log = structlog.get_logger(__name__)

# Who answered, in the history of the payment: the customer has no token of ours.
CUSTOMER = "customer"
# A form of ours has less than a hundred bytes.
FORM_BYTES_MAX = 4096
# The buttons of the form, by their value.
BUTTONS = {"approve": ActionResult.APPROVED, "decline": ActionResult.DECLINED}


class Form(NamedTuple):
    """A form as it was sent: the value that only its page has, and the button that was pressed."""

    form: str
    result: ActionResult


async def read_form(request: Request) -> Form | None:
    """Return the form in the body; None if the body has other fields, a field twice or another button.

    Raises Problem (413, 415).
    """
    try:
        fields = await read_fields(request, bytes_max=FORM_BYTES_MAX, fields_max=len(Form._fields))
    except Problem as problem:
        if problem.code is Code.MALFORMED_REQUEST:
            return None
        raise
    match fields:
        case {"form": form, "result": result} if len(fields) == len(Form._fields):
            return Form(form, BUTTONS[result]) if result in BUTTONS else None
        case _:
            return None


def form_value(api: Api, token: str, payment: Payment) -> str:
    """Return what the form of the payment's page must send back."""
    return api.runtime.keyring.approval_form_value(token, payment.sequence)


def is_own_form(api: Api, token: str, payment: Payment, form: Form | None) -> bool:
    """Return whether the form is the one that the payment's page shows now."""
    return form is not None and compare_digest(form.form.encode(), form_value(api, token, payment).encode())


async def record_answer(api: Api, approval: Approval, result: ActionResult) -> None:
    """Record the customer's answer, if the payment still waits for it, and publish what follows from it."""

    async def answer(connection: AsyncConnection, now: datetime) -> Requested:
        asked = found_or_404(await answer_action(connection, approval.payment_id, result=result, by=CUSTOMER, now=now))
        # Such a worker would ask the customer again.
        if asked.work and api.worker_versions.has_0_1():
            raise OlderWorkers("approvals by customers")
        return asked

    asked = await api.in_transaction(answer)
    if asked.is_moved:
        log_answer(asked.payment)
        api.publish_requested(asked)


def log_answer(payment: Payment) -> None:
    """Log what the customer answered, or a test for the customer."""
    is_approved = payment.action_result == ActionResult.APPROVED
    event = "payment.action_approved" if is_approved else "payment.action_declined"
    log.info(event, payment_id=str(payment.id))
