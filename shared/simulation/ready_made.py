"""Ready-made payment methods: names such as `pm_test_visa` that every user may pay with. No table has a row of them."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from shared.lifecycle import FailureCode, MethodType
from shared.simulation.scenarios import (
    ADDRESS_FAILED,
    ADDRESS_UNKNOWN,
    ALWAYS_APPROVED,
    CHALLENGED,
    CHALLENGED_THEN_DECLINED,
    CHALLENGED_WITHOUT_FUNDS,
    CVC_FAILED,
    PENDING,
    PENDING_THEN_DECLINED,
    POSTAL_CODE_FAILED,
    REFUND_DECLINED,
    REFUND_SLOW,
    STREET_FAILED,
    Scenario,
    scenario_members,
)

NAME_PREFIX = "pm_test_"
# The column `payment_method_id` takes ids only. The id of a name is the same in every installation and for ever.
_NAMESPACE = UUID("7d1f2c0e-4b57-5a0c-9c36-0f6a51b0c0de")
# The cards never expire.
_EXPIRY = {"exp_month": 12, "exp_year": 2099}

_CREDIT, _DEBIT, _PAYPAL = MethodType.CREDIT_CARD, MethodType.DEBIT_CARD, MethodType.PAYPAL


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyMade:
    """A ready-made method. Without a scenario the success rate decides."""

    name: str
    id: UUID
    type: MethodType
    display_name: str
    details: dict[str, Any]
    scenario: Scenario | None

    def copy_for_payment(self) -> dict[str, Any]:
        """Return the copy of the method that a payment keeps, with the name by which clients know the method."""
        return {
            "type": self.type,
            "details": self.details,
            "name": self.name,
            **scenario_members(self.scenario),
        }

    def to_json(self) -> dict[str, Any]:
        """Return the method as clients see it."""
        failure = self.scenario.failure if self.scenario else None
        is_random = self.scenario is None or self.scenario.follows_rate
        decided = "fails" if failure else "succeeds"
        return {
            "id": self.name,
            "type": self.type.value,
            "display_name": self.display_name,
            "masked_details": self.details,
            "outcome": "random" if is_random else decided,
            "failure_code": failure,
        }


def _card(
    name: str, display_name: str, brand: str, last4: str, scenario: Scenario | None, type_: MethodType = _CREDIT
) -> ReadyMade:
    return _method(name, type_, display_name, {"brand": brand, "last4": last4, **_EXPIRY}, scenario)


def _account(name: str, display_name: str, masked: str, scenario: Scenario | None) -> ReadyMade:
    return _method(name, _PAYPAL, display_name, {"email": masked}, scenario)


def _method(
    name: str, type_: MethodType, display_name: str, details: dict[str, Any], scenario: Scenario | None
) -> ReadyMade:
    full_name = NAME_PREFIX + name
    return ReadyMade(
        name=full_name,
        id=uuid5(_NAMESPACE, full_name),
        type=type_,
        display_name=display_name,
        details=details,
        scenario=scenario,
    )


# Each method that always fails is a test card or a test address, and has its last digits or its masked form.
_METHODS = (
    _card("visa", "Visa that always succeeds", "visa", "4242", ALWAYS_APPROVED),
    _card("mastercard", "Mastercard that always succeeds", "mastercard", "4444", ALWAYS_APPROVED),
    _card("amex", "American Express that always succeeds", "amex", "0005", ALWAYS_APPROVED),
    _card("discover", "Discover that always succeeds", "discover", "1117", ALWAYS_APPROVED),
    _card("diners", "Diners Club that always succeeds", "diners", "0004", ALWAYS_APPROVED),
    _card("jcb", "JCB that always succeeds", "jcb", "0505", ALWAYS_APPROVED),
    _card("unionpay", "UnionPay that always succeeds", "unionpay", "0005", ALWAYS_APPROVED),
    _card("debit", "Debit Visa that always succeeds", "visa", "5556", ALWAYS_APPROVED, _DEBIT),
    _card("debit_mastercard", "Debit Mastercard that always succeeds", "mastercard", "8210", ALWAYS_APPROVED, _DEBIT),
    _account("paypal", "PayPal that always succeeds", "s***s@paypal.test", ALWAYS_APPROVED),
    _card("card_declined", "Declined card", "visa", "0002", Scenario(FailureCode.CARD_DECLINED)),
    _card("charge_declined", "Card whose charges are declined", "visa", "0341", Scenario(FailureCode.CARD_DECLINED)),
    _card("insufficient_funds", "Card without funds", "visa", "9995", Scenario(FailureCode.INSUFFICIENT_FUNDS)),
    _card("lost_card", "Lost card", "visa", "9987", Scenario(FailureCode.LOST_CARD)),
    _card("stolen_card", "Stolen card", "visa", "9979", Scenario(FailureCode.STOLEN_CARD)),
    _card("expired_card", "Card that the issuer calls expired", "visa", "0069", Scenario(FailureCode.EXPIRED_CARD)),
    _card("incorrect_cvc", "Card with a wrong CVC", "visa", "0127", Scenario(FailureCode.INCORRECT_CVC)),
    _card("processing_error", "Card with a processing error", "visa", "0119", Scenario(FailureCode.PROCESSING_ERROR)),
    _card("velocity_exceeded", "Card used too often", "visa", "6975", Scenario(FailureCode.CARD_VELOCITY_EXCEEDED)),
    _card("fraud_suspected", "Card under suspicion of fraud", "visa", "0019", Scenario(FailureCode.FRAUD_SUSPECTED)),
    _card("authentication_required", "Card that wants 3-D Secure each time", "visa", "3155", CHALLENGED),
    _card("3ds_required", "Card that wants 3-D Secure 2", "visa", "3220", CHALLENGED),
    _card("3ds_declined", "Declined card after 3-D Secure", "visa", "1629", CHALLENGED_THEN_DECLINED),
    _card("3ds_insufficient_funds", "Card without funds after 3-D Secure", "visa", "3178", CHALLENGED_WITHOUT_FUNDS),
    _card("3ds_lookup_failed", "Card whose 3-D Secure fails", "visa", "1280", Scenario(FailureCode.CARD_DECLINED)),
    _card("refund_declined", "Card whose refunds are declined", "visa", "5126", REFUND_DECLINED),
    _card("refund_slow", "Card whose refunds take 10 s longer", "visa", "7726", REFUND_SLOW),
    _card("cvc_check_failed", "Approved, but the CVC is wrong", "visa", "0101", CVC_FAILED),
    _card("postal_code_check_failed", "Approved, but the postal code is wrong", "visa", "0036", POSTAL_CODE_FAILED),
    _card("street_check_failed", "Approved, but the street is wrong", "visa", "0028", STREET_FAILED),
    _card("address_check_failed", "Approved, but the address is wrong", "visa", "0010", ADDRESS_FAILED),
    _card("address_check_unavailable", "Approved, the address is not checked", "visa", "0044", ADDRESS_UNKNOWN),
    _account(
        "paypal_declined",
        "PayPal whose card or bank declines",
        "d***d@paypal.test",
        Scenario(FailureCode.INSTRUMENT_DECLINED),
    ),
    _account(
        "paypal_restricted",
        "PayPal account that is restricted",
        "r***d@paypal.test",
        Scenario(FailureCode.PAYER_ACCOUNT_RESTRICTED),
    ),
    _account("paypal_funds", "PayPal without funds", "f***s@paypal.test", Scenario(FailureCode.INSUFFICIENT_FUNDS)),
    _account("paypal_pending", "PayPal that settles later", "p***g@paypal.test", PENDING),
    _account("paypal_pending_declined", "PayPal that declines later", "p***d@paypal.test", PENDING_THEN_DECLINED),
    _card("random_card", "Card that follows the success rate", "visa", "1881", None),
    _card("random_debit", "Debit card that follows the success rate", "visa", "5556", None, _DEBIT),
    _account("random_paypal", "PayPal that follows the success rate", "s***r@example.com", None),
)
READY_MADE = {method.name: method for method in _METHODS}
