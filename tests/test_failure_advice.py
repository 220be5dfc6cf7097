"""What a customer can do after a failure: an advice for every failure code of a payment, and for nothing else."""

import httpx
import pytest

from shared.failure_advice import ADVICE, FailureAdvice, advice_for
from shared.lifecycle import CaptureFailureCode, FailureCode
from shared.refund_lifecycle import RefundFailureCode
from tests.support.api_client import RunningApi, paid
from tests.support.money import CAPTURE_DECLINED, authorized, charged, shown
from tests.support.settling import DECLINED, settled

pytest_plugins = ["tests.support.api_fixtures"]

ADVICE_OF_THE_CONTRACT = {
    "try_again_later": "network_error processing_error card_velocity_exceeded order_service_unavailable",
    "use_another_method": "card_declined insufficient_funds payer_account_restricted instrument_declined "
    "authentication_failed authentication_required action_expired",
    "correct_details": "incorrect_cvc expired_card invalid_payment_method",
    "do_not_retry": "lost_card stolen_card fraud_suspected order_not_found order_not_owned order_not_payable "
    "order_amount_mismatch",
}


def test_every_failure_code_has_the_advice_of_the_contract() -> None:
    assert set(ADVICE) == set(FailureCode)
    assert {advice.value for advice in FailureAdvice} == set(ADVICE_OF_THE_CONTRACT)
    for advice, codes in ADVICE_OF_THE_CONTRACT.items():
        assert {code.value for code, given in ADVICE.items() if given == advice} == set(codes.split())


def test_what_is_no_failure_of_a_payment_has_no_advice() -> None:
    merchants = {*CaptureFailureCode, *RefundFailureCode} - {"network_error"}
    assert {advice_for(code) for code in (None, "", "a_code_of_a_newer_version", *merchants)} == {None}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_only_a_failed_payment_shows_advice(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    failed = await paid(user)
    assert failed["failure_advice"] is None
    await settled(running_api.database, failed["id"], DECLINED)
    assert (await shown(user, failed["id"]))["failure_advice"] == "use_another_method"
    assert (await charged(user, running_api.database))["failure_advice"] is None
    held = await authorized(user, running_api.database)
    await service.post(f"/payments/{held['id']}/capture")
    await settled(running_api.database, held["id"], CAPTURE_DECLINED)
    assert (await shown(user, held["id"]))["failure_advice"] is None
