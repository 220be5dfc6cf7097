"""What a customer can do after a failed payment: one advice for each failure code. No database here."""

from enum import StrEnum

from shared.lifecycle import FailureCode


class FailureAdvice(StrEnum):
    """What a customer can do after a failed payment; the closed set of `failure_advice`.

    A shop shows general words to its customer: nobody is told that a card is lost, stolen or suspected.
    """

    TRY_AGAIN_LATER = "try_again_later"
    """Nothing is wrong with the payment method: the same payment may succeed later."""
    USE_ANOTHER_METHOD = "use_another_method"
    """This payment method will fail again; another one may succeed."""
    CORRECT_DETAILS = "correct_details"
    """The details of the payment method are wrong or out of date: correct them and pay again."""
    DO_NOT_RETRY = "do_not_retry"
    """Another try fails in the same way, or must not be made."""


_LATER, _OTHER = FailureAdvice.TRY_AGAIN_LATER, FailureAdvice.USE_ANOTHER_METHOD
_CORRECT, _NEVER = FailureAdvice.CORRECT_DETAILS, FailureAdvice.DO_NOT_RETRY

ADVICE: dict[FailureCode, FailureAdvice] = {
    FailureCode.NETWORK_ERROR: _LATER,
    FailureCode.PROCESSING_ERROR: _LATER,
    FailureCode.CARD_VELOCITY_EXCEEDED: _LATER,
    FailureCode.ORDER_SERVICE_UNAVAILABLE: _LATER,
    FailureCode.CARD_DECLINED: _OTHER,
    FailureCode.INSUFFICIENT_FUNDS: _OTHER,
    FailureCode.AUTHENTICATION_REQUIRED: _OTHER,
    FailureCode.AUTHENTICATION_FAILED: _OTHER,
    FailureCode.ACTION_EXPIRED: _OTHER,
    FailureCode.PAYER_ACCOUNT_RESTRICTED: _OTHER,
    FailureCode.INSTRUMENT_DECLINED: _OTHER,
    FailureCode.INCORRECT_CVC: _CORRECT,
    FailureCode.EXPIRED_CARD: _CORRECT,
    FailureCode.INVALID_PAYMENT_METHOD: _CORRECT,
    FailureCode.LOST_CARD: _NEVER,
    FailureCode.STOLEN_CARD: _NEVER,
    FailureCode.FRAUD_SUSPECTED: _NEVER,
    FailureCode.ORDER_NOT_FOUND: _NEVER,
    FailureCode.ORDER_NOT_OWNED: _NEVER,
    FailureCode.ORDER_NOT_PAYABLE: _NEVER,
    FailureCode.ORDER_AMOUNT_MISMATCH: _NEVER,
}
_ADVICE_OF_TEXT = {code.value: advice.value for code, advice in ADVICE.items()}


def advice_for(failure_code: str | None) -> str | None:
    """Return the advice for a stored failure code; None without a failure, or for the code of a newer version."""
    return _ADVICE_OF_TEXT.get(failure_code) if failure_code else None
