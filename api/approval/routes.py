"""The pages at which customers approve or decline payments. Whoever has the link may answer; no other token is needed.

Looking at a page changes nothing. An answer needs the value in the form of the page, which other sites do not know.
"""

from datetime import datetime

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from api.approval.answers import form_value, is_own_form, read_form, record_answer
from api.approval.links import SHOWN_AFTER_END, Approval
from api.approval.pages import HEADERS, NOT_UNDERSTOOD, State, approval_page, result_page, state_of
from api.paths import APPROVE
from api.problems import Code, Problem, found_or_404
from api.state import Api
from shared.payments.find import Visible, find
from shared.payments.payment import Payment

router = APIRouter(prefix=APPROVE, include_in_schema=False)


@router.get("/{token}")
async def get_approval_page(request: Request, token: str) -> Response:
    """Show what is to be approved, or what became of it."""
    api: Api = request.app.state.api
    payment, now = await _read(api, _opened(api, token))
    state = state_of(payment, now)
    if state is State.OPEN:
        return approval_page(payment, now, form_value(api, token, payment))
    return result_page(payment, state)


@router.post("/{token}")
async def answer_approval_page(request: Request, token: str) -> Response:
    """Record the customer's answer and lead to the result.

    A form that is not the page's own changes nothing. Once the payment no longer waits, every form leads to the result.
    """
    api: Api = request.app.state.api
    form = await read_form(request)
    approval = _opened(api, token)
    payment, now = await _read(api, approval)
    if state_of(payment, now) is State.OPEN:
        if form is None or not is_own_form(api, token, payment, form):
            return approval_page(payment, now, form_value(api, token, payment), fault=NOT_UNDERSTOOD)
        await record_answer(api, approval, form.result)
    # Relative to the page, which works under every prefix.
    return RedirectResponse(token, status_code=303, headers=HEADERS)


def _opened(api: Api, token: str) -> Approval:
    return found_or_404(Approval.open(api.runtime.keyring, token))


async def _read(api: Api, approval: Approval) -> tuple[Payment, datetime]:
    """Return the payment of a link and the time. Raises Problem (404) if the link is too old, or not the payment's."""
    database = api.runtime.database
    async with database.read() as connection:
        now = await database.clock.now(connection)
        payment = await find(connection, approval.payment_id, Visible())
    if payment is None or not approval.is_of(payment) or now >= approval.expires_at + SHOWN_AFTER_END:
        raise Problem(Code.NOT_FOUND)
    return payment, now
