"""Sample payment details with which `payments demo` and `payments load` pay. None belongs to a real account."""

from datetime import UTC, datetime
from typing import Any

VALID_FOR_YEARS = 3

# These follow the success rate.
CREDIT_CARDS = ("4012888888881881", "5555555555554444", "378282246310005", "6011111111111117", "3566002020360505")
DEBIT_CARDS = ("4000056655665556", "5200828282828210")
DECLINED_CARD = "4000000000000002"


def card(number: str) -> dict[str, Any]:
    """Return the `payment_details` of a card with this number that is valid for some years."""
    year = datetime.now(UTC).year + VALID_FOR_YEARS
    is_amex = number.startswith("37")
    return {"card_number": number, "exp_month": 12, "exp_year": year, "cvv": "1234" if is_amex else "123"}
