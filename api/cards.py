"""Checks of card numbers and CVCs, and the failures that test cards stand for.

A card number is inspected once, while its payment method is added. It is never stored here and never part of an error.
"""

import re
import unicodedata
from collections.abc import Container
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

from shared.lifecycle import FailureCode
from shared.simulation.scenarios import (
    ADDRESS_FAILED,
    ADDRESS_UNKNOWN,
    ALWAYS_APPROVED,
    CHALLENGED,
    CHALLENGED_THEN_DECLINED,
    CHALLENGED_WITHOUT_FUNDS,
    CVC_FAILED,
    POSTAL_CODE_FAILED,
    REFUND_DECLINED,
    REFUND_SLOW,
    STREET_FAILED,
    Scenario,
)

# As many digits as a card number has (ISO/IEC 7812-1), in one piece or in the groups that are printed on cards.
RUN = re.compile(
    r"(?<![0-9])(?:[0-9]{13,19}|[0-9]{4}(?P<by>[ -])[0-9]{4}(?P=by)[0-9]{4}(?P=by)[0-9]{4}(?:(?P=by)[0-9]{1,3})?"
    r"|[0-9]{4}[ -][0-9]{6}[ -][0-9]{4,5})(?![0-9])"
)
# The form of the CVC of any brand.
CVC = r"^[0-9]{3,4}$"

type CardField = Literal["card_number", "cvv"]


class Brand(StrEnum):
    """The network of a card; the words that clients see."""

    VISA = "visa"
    MASTERCARD = "mastercard"
    AMEX = "amex"
    DISCOVER = "discover"
    DINERS = "diners"
    JCB = "jcb"
    UNIONPAY = "unionpay"


class CardRefused(ValueError):
    """A card cannot be what it claims.

    `reason` continues a sentence that begins with the name of the field. It never contains the value of the field.
    """

    def __init__(self, field: CardField, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field: CardField = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class InspectedCard:
    """All that may be kept of a card number."""

    brand: Brand
    last4: str
    # What a test number makes of every charge.
    scenario: Scenario | None


@dataclass(frozen=True, slots=True)
class BrandRule:
    """The form of the card numbers of one network."""

    brand: Brand
    # The first and the last value of each range of leading digits.
    prefixes: tuple[tuple[str, str], ...]
    lengths: Container[int]
    cvc_length: int = 3


BRAND_RULES = (
    BrandRule(Brand.VISA, (("4", "4"),), (13, 16, 19)),
    BrandRule(Brand.MASTERCARD, (("51", "55"), ("2221", "2720")), (16,)),
    BrandRule(Brand.AMEX, (("34", "34"), ("37", "37")), (15,), cvc_length=4),
    BrandRule(Brand.DISCOVER, (("6011", "6011"), ("644", "649"), ("65", "65")), range(16, 20)),
    BrandRule(Brand.DINERS, (("300", "305"), ("36", "36"), ("38", "39")), range(14, 20)),
    BrandRule(Brand.JCB, (("3528", "3589"),), range(16, 20)),
    BrandRule(Brand.UNIONPAY, (("62", "62"),), range(16, 20)),
)

CARD_SCENARIOS = {
    "4242424242424242": ALWAYS_APPROVED,
    "4000000000000002": Scenario(FailureCode.CARD_DECLINED),
    "4000000000000341": Scenario(FailureCode.CARD_DECLINED),
    "4000000000009995": Scenario(FailureCode.INSUFFICIENT_FUNDS),
    "4000000000009987": Scenario(FailureCode.LOST_CARD),
    "4000000000009979": Scenario(FailureCode.STOLEN_CARD),
    "4000000000000069": Scenario(FailureCode.EXPIRED_CARD),
    "4000000000000127": Scenario(FailureCode.INCORRECT_CVC),
    "4000000000000119": Scenario(FailureCode.PROCESSING_ERROR),
    "4000000000006975": Scenario(FailureCode.CARD_VELOCITY_EXCEEDED),
    "4100000000000019": Scenario(FailureCode.FRAUD_SUSPECTED),
    "4000002500003155": CHALLENGED,
    "4000000000003220": CHALLENGED,
    "4000008400001629": CHALLENGED_THEN_DECLINED,
    "4000008260003178": CHALLENGED_WITHOUT_FUNDS,
    # It wants 3-D Secure, but the lookup breaks.
    "4000008400001280": Scenario(FailureCode.CARD_DECLINED),
    "4000000000005126": REFUND_DECLINED,
    "4000000000007726": REFUND_SLOW,
    "4000000000000101": CVC_FAILED,
    "4000000000000036": POSTAL_CODE_FAILED,
    "4000000000000028": STREET_FAILED,
    "4000000000000010": ADDRESS_FAILED,
    "4000000000000044": ADDRESS_UNKNOWN,
}


def inspect_card(number: str, cvc: str) -> InspectedCard:
    """Return what may be kept of the card with this number. The CVC is checked and not kept.

    Raises CardRefused as `check_number` and `check_cvc` do.
    """
    rule = check_number(number)
    check_cvc(cvc, rule)
    digits = digits_of(number)
    return InspectedCard(brand=rule.brand, last4=digits[-4:], scenario=CARD_SCENARIOS.get(digits))


def check_number(number: str) -> BrandRule:
    """Return the rule of the brand that the number belongs to.

    Raises CardRefused if there is none, or if the number has none of the brand's lengths or a wrong check digit (Luhn).
    """
    digits = digits_of(number)
    rule = _rule_of(digits)
    if len(digits) not in rule.lengths:
        raise CardRefused("card_number", f"does not have the length of a card of the brand {rule.brand}")
    if not passes_luhn(digits):
        raise CardRefused("card_number", "has a wrong check digit")
    return rule


def check_cvc(cvc: str, rule: BrandRule) -> None:
    """Check that the CVC has the length of the brand. Raises CardRefused."""
    if len(cvc) != rule.cvc_length or not _is_digits(cvc):
        raise CardRefused("cvv", f"must have {rule.cvc_length} digits for a card of the brand {rule.brand}")


def digits_of(number: str) -> str:
    """Return `number` without the blanks and hyphens that people write into it: the form to inspect and to fingerprint.

    Numbers that are copied from a page or a form have every kind of them. Raises CardRefused if anything but ASCII
    digits is left.
    """
    digits = number if _is_digits(number) else "".join(character for character in number if not _separates(character))
    if not _is_digits(digits):
        raise CardRefused("card_number", "must consist of the digits 0-9, with blanks or hyphens between them")
    return digits


def _separates(character: str) -> bool:
    return unicodedata.category(character) in {"Zs", "Pd"} or character in "\t\u200b\u2060\ufeff"


def passes_luhn(digits: str) -> bool:
    """Return whether the check digit is right (Luhn; ISO/IEC 7812-1, annex B)."""
    from_the_right = [int(digit) for digit in reversed(digits)]
    doubled = (2 * digit for digit in from_the_right[1::2])
    return (sum(from_the_right[::2]) + sum(value - 9 if value > 9 else value for value in doubled)) % 10 == 0  # noqa: PLR2004


def has_card_number(text: str) -> bool:
    """Return whether a run of 13 to 19 digits in the text has the check digit of a card number."""
    return any(passes_luhn(run[0].replace(" ", "").replace("-", "")) for run in RUN.finditer(text))


def expires_at(month: int, year: int) -> datetime:
    """Return the first moment (UTC) at which a card is no longer valid: it is valid through the last day of its month.

    Raises ValueError for a month outside 1-12 or a year that no date can have.
    """
    if not 1 <= month <= 12:  # noqa: PLR2004
        raise ValueError("a month is between 1 and 12")
    return datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)


def _rule_of(digits: str) -> BrandRule:
    for rule in BRAND_RULES:
        if any(first <= digits[: len(first)] <= last for first, last in rule.prefixes):
            return rule
    raise CardRefused("card_number", f"is of no brand that is accepted: {', '.join(Brand)}")


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()
