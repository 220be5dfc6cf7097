"""What people are told of a failed payment, capture or refund: a sentence for each failure code. No database here."""

from shared.lifecycle import CaptureFailureCode, FailureCode
from shared.refund_lifecycle import RefundFailureCode

FAILURE_REASONS = {
    FailureCode.CARD_DECLINED: "The issuer declined the card without giving a reason.",
    FailureCode.INSUFFICIENT_FUNDS: "The account does not have enough funds, or its daily limit is reached.",
    FailureCode.NETWORK_ERROR: "The gateway could not be reached; nothing was charged.",
    FailureCode.INVALID_PAYMENT_METHOD: "The issuer does not know this payment method or does not accept it.",
    FailureCode.LOST_CARD: "The card was reported lost.",
    FailureCode.STOLEN_CARD: "The card was reported stolen.",
    FailureCode.EXPIRED_CARD: "The card has expired.",
    FailureCode.INCORRECT_CVC: "The security code does not belong to the card.",
    FailureCode.PROCESSING_ERROR: "The payment could not be processed; nothing was charged.",
    FailureCode.CARD_VELOCITY_EXCEEDED: "The card was used too often in a short time.",
    FailureCode.FRAUD_SUSPECTED: "The payment was blocked because it looks fraudulent.",
    FailureCode.PAYER_ACCOUNT_RESTRICTED: "The payer's PayPal account is restricted.",
    FailureCode.INSTRUMENT_DECLINED: "The card or bank account behind the PayPal account was declined.",
    FailureCode.AUTHENTICATION_REQUIRED: "The issuer wants 3-D Secure, and the payment has no return_url for it.",
    FailureCode.AUTHENTICATION_FAILED: "The customer did not approve the payment; nothing was charged.",
    FailureCode.ACTION_EXPIRED: "The customer did not answer in time; nothing was charged.",
    # The gateway never fails a payment for these by itself: the processor voids the payment with them.
    FailureCode.ORDER_NOT_FOUND: "There is no such order.",
    FailureCode.ORDER_NOT_OWNED: "The order belongs to somebody else.",
    FailureCode.ORDER_NOT_PAYABLE: "The order does not wait for a payment.",
    FailureCode.ORDER_AMOUNT_MISMATCH: "The order's total is another amount or currency.",
    FailureCode.ORDER_SERVICE_UNAVAILABLE: "The order could not be checked in time; nothing was charged.",
}

CAPTURE_FAILURE_REASONS = {
    CaptureFailureCode.CAPTURE_DECLINED: "The issuer refused the capture; the funds are still held.",
    CaptureFailureCode.NETWORK_ERROR: "The gateway could not be reached; nothing was captured.",
}
REFUND_FAILURE_REASONS = {
    RefundFailureCode.REFUND_DECLINED: "The issuer refused the refund; nothing was paid back.",
    RefundFailureCode.NETWORK_ERROR: "The gateway could not be reached; nothing was paid back.",
}
