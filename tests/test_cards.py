"""Card numbers and CVCs: which are accepted, of which brand they are, and that no refusal repeats one."""

import traceback
from datetime import UTC, datetime

import pytest

from api.cards import Brand, CardRefused, digits_of, expires_at, has_card_number, inspect_card, passes_luhn
from tests.support.cards import SUCCESS_CARDS, cvc_for


def card_number(prefix: str, length: int) -> str:
    """A number that begins with `prefix`, has `length` digits and passes Luhn."""
    body = prefix.ljust(length - 1, "0")
    return next(number for digit in range(10) if passes_luhn(number := f"{body}{digit}"))


@pytest.mark.parametrize(
    "number",
    [
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        " 42424242 4242-4242 ",
        "4242\u00a04242\u20094242\u30004242",
        "4242\t4242\u200b4242\ufeff4242",
        "4242\u20104242\u20134242\u20144242",
    ],
)
def test_blanks_and_hyphens_make_no_difference(number: str) -> None:
    assert inspect_card(number, "123") == inspect_card("4242424242424242", "123")
    assert digits_of(number) == "4242424242424242"


@pytest.mark.parametrize(
    ("prefix", "length", "brand"),
    [
        ("4", 13, "visa"),
        ("4", 19, "visa"),
        ("51", 16, "mastercard"),
        ("55", 16, "mastercard"),
        ("2221", 16, "mastercard"),
        ("2720", 16, "mastercard"),
        ("34", 15, "amex"),
        ("37", 15, "amex"),
        ("6011", 16, "discover"),
        ("644", 16, "discover"),
        ("649", 16, "discover"),
        ("65", 19, "discover"),
        ("300", 14, "diners"),
        ("305", 14, "diners"),
        ("36", 14, "diners"),
        ("38", 14, "diners"),
        ("39", 19, "diners"),
        ("3528", 16, "jcb"),
        ("3589", 19, "jcb"),
        ("62", 16, "unionpay"),
        ("62", 19, "unionpay"),
    ],
)
def test_the_first_and_last_number_of_a_range_have_its_brand(prefix: str, length: int, brand: str) -> None:
    assert inspect_card(card_number(prefix, length), cvc_for(brand)).brand == brand


@pytest.mark.parametrize(
    "prefix",
    [
        "2220",
        "2721",
        "299",
        "306",
        "309",
        "33",
        "35",
        "3527",
        "3590",
        "50",
        "56",
        "6010",
        "6012",
        "61",
        "63",
        "643",
        "66",
    ],
)
def test_a_number_beside_every_range_is_of_no_brand(prefix: str) -> None:
    with pytest.raises(CardRefused, match="of no brand that is accepted: visa, mastercard, ") as refused:
        inspect_card(card_number(prefix, 16), "123")
    assert refused.value.field == "card_number"


@pytest.mark.parametrize(
    ("prefix", "lengths"),
    [
        ("4", {13, 16, 19}),
        ("51", {16}),
        ("2300", {16}),
        ("34", {15}),
        ("6011", {16, 17, 18, 19}),
        ("36", {14, 15, 16, 17, 18, 19}),
        ("3530", {16, 17, 18, 19}),
        ("62", {16, 17, 18, 19}),
    ],
)
def test_a_brand_takes_its_own_lengths_only(prefix: str, lengths: set[int]) -> None:
    assert {length for length in range(8, 25) if is_accepted(card_number(prefix, length))} == lengths


def is_accepted(number: str) -> bool:
    for cvc in ("123", "1234"):
        try:
            inspect_card(number, cvc)
        except CardRefused:
            continue
        return True
    return False


def test_any_single_wrong_digit_fails_luhn() -> None:
    number = "4242424242424242"
    wrong = [
        number[:place] + digit + number[place + 1 :]
        for place in range(16)
        for digit in "0123456789"
        if digit != number[place]
    ]
    assert passes_luhn(number)
    assert not any(passes_luhn(other) for other in wrong)


def test_the_card_that_fails_luhn_is_refused_when_it_is_added() -> None:
    with pytest.raises(CardRefused, match="check digit") as refused:
        inspect_card("4242424242424241", "123")
    assert refused.value.field == "card_number"


@pytest.mark.parametrize(
    "number",
    [
        "",
        " ",
        "-",
        "4242.4242.4242.4242",
        "4242\v424242424242",
        "+4242424242424242",
        "4242424242424242\n",
        "4242424242424242\x00",
        "\uff14\uff12" * 8,  # full-width digits
        "\u00b2" * 16,  # superscripts: str.isdigit takes them, int does not
    ],
)
def test_anything_but_ascii_digits_is_refused(number: str) -> None:
    with pytest.raises(CardRefused, match="digits") as refused:
        inspect_card(number, "123")
    assert refused.value.field == "card_number"


@pytest.mark.parametrize("cvc", ["", "12", "1234", "12a", "\uff11\uff12\uff13", " 123", "1 3"])
def test_a_cvc_has_three_ascii_digits(cvc: str) -> None:
    with pytest.raises(CardRefused, match="3 digits") as refused:
        inspect_card("4242424242424242", cvc)
    assert refused.value.field == "cvv"


def test_the_cvc_of_an_amex_has_four_digits() -> None:
    assert inspect_card("378282246310005", "1234").brand is Brand.AMEX
    with pytest.raises(CardRefused, match="4 digits"):
        inspect_card("378282246310005", "123")


@pytest.mark.parametrize(
    ("number", "cvc"),
    [
        ("4242424242424241", "987"),
        ("424242424242424", "987"),
        ("9242424242424242", "987"),
        ("4242424242424242", "98765"),
        ("4242x42424242424", "987"),
    ],
)
def test_a_refusal_never_repeats_the_number_or_the_cvc(number: str, cvc: str) -> None:
    with pytest.raises(CardRefused) as refused:
        inspect_card(number, cvc)
    text = f"{refused.value!r} {refused.value.reason} {refused.value.args} {traceback.format_exception(refused.value)}"
    assert number not in text
    assert number[-4:] not in text
    assert cvc not in text


def test_a_kept_card_shows_four_digits_of_its_number() -> None:
    shown = repr(inspect_card("5555555555554444", "987"))
    assert "4444" in shown
    assert "54444" not in shown
    assert "987" not in shown


@pytest.mark.parametrize(
    ("month", "year", "moment"),
    [
        (1, 2027, datetime(2027, 2, 1, tzinfo=UTC)),
        (11, 2027, datetime(2027, 12, 1, tzinfo=UTC)),
        (12, 2027, datetime(2028, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_card_is_valid_through_the_last_day_of_its_month(month: int, year: int, moment: datetime) -> None:
    assert expires_at(month, year) == moment


@pytest.mark.parametrize(("month", "year"), [(0, 2027), (13, 2027), (-1, 2027), (12, 9999)])
def test_a_month_that_no_calendar_has_is_refused(month: int, year: int) -> None:
    with pytest.raises(ValueError, match=r"month|year"):
        expires_at(month, year)


@pytest.mark.parametrize(
    "text",
    [
        *(number for number, _ in SUCCESS_CARDS),
        "4222222222222",
        "6304000000000000018",
        "card 4242424242424242.",
        "x4242424242424242x",
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        "3782 822463 10005",
        "3056 930902 5904",
        "6304 0000 0000 0000 018",
        "order 1234567890123, card 4242424242424242",
    ],
)
def test_a_card_number_in_a_text_is_found(text: str) -> None:
    assert has_card_number(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Two cups, blue",
        "4242424242424241",
        "4242 4242 4242 4241",
        "424242424242",
        "42424242424242424242",
        "4242 4242-4242 4242",
        "order 1234567890",
        "0193ae5c-2f5e-7c40-8d5f-424242424242",
        "2026-11-28 09:12:40",
        "\uff14\uff12" * 8,
    ],
)
def test_other_digits_are_no_card_number(text: str) -> None:
    assert not has_card_number(text)
