"""Currencies and how amounts are written."""

from decimal import Decimal

import pytest

from shared.money import (
    EXPONENTS,
    NO_DECIMALS,
    THREE_DECIMALS,
    TWO_DECIMALS,
    exponent,
    format_amount,
    in_major_units,
    is_currency,
)


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (1585, "USD", "15.85 USD"),
        (100, "JPY", "100 JPY"),
        (12345, "KWD", "12.345 KWD"),
        (5, "EUR", "0.05 EUR"),
        (7, "TND", "0.007 TND"),
        (0, "USD", "0.00 USD"),
        (-5, "USD", "-0.05 USD"),
        (-1585, "USD", "-15.85 USD"),
        # A float would have lost the cents.
        (2**63 - 1, "USD", "92233720368547758.07 USD"),
    ],
)
def test_an_amount_is_written_with_the_decimals_of_its_currency(amount: int, currency: str, text: str) -> None:
    assert format_amount(amount, currency) == text


@pytest.mark.parametrize(
    ("decimals", "codes"),
    [
        (0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"),
        (2, "USD EUR GBP CHF CNY INR BRL MXN HUF IDR TWD MGA MRU XCD XCG ZWG SLE VES UYU"),
        (3, "BHD IQD JOD KWD LYD OMR TND"),
    ],
)
def test_a_currency_has_the_decimals_of_iso_4217(decimals: int, codes: str) -> None:
    assert {code: exponent(code) for code in codes.split()} == dict.fromkeys(codes.split(), decimals)


def test_only_these_currencies_have_other_than_two_decimals() -> None:
    assert sum(decimals != 2 for decimals in EXPONENTS.values()) == 16 + 7


def test_every_code_is_listed_once_and_is_three_capital_letters() -> None:
    listed = f"{TWO_DECIMALS} {NO_DECIMALS} {THREE_DECIMALS}".split()
    assert len(listed) == len(EXPONENTS) == 155
    assert all(len(code) == 3 and code.isascii() and code.isalpha() and code.isupper() for code in listed)


@pytest.mark.parametrize("code", ["", "usd", "US", "USDT", "ABC", " USD", "\uff35\uff33\uff24"])
def test_another_spelling_is_no_currency(code: str) -> None:
    assert not is_currency(code)


@pytest.mark.parametrize("code", ["HRK", "BGN", "ANG", "CUC", "SLL", "ZWL", "DEM"])
def test_a_retired_currency_is_no_currency(code: str) -> None:
    assert not is_currency(code)


@pytest.mark.parametrize("code", ["XAU", "XDR", "XTS", "XXX", "CLF", "UYW", "CHE", "USN", "XAD"])
def test_funds_metals_and_test_codes_are_no_currency(code: str) -> None:
    assert not is_currency(code)


def test_an_unknown_currency_is_never_written() -> None:
    with pytest.raises(KeyError):
        format_amount(100, "XXX")


@pytest.mark.parametrize(
    ("amount", "currency", "written"),
    [
        (1585, "USD", "15.85"),
        (1585, "JPY", "1585"),
        (1585, "BHD", "1.585"),
        (5, "USD", "0.05"),
        (0, "USD", "0"),
        (-1585, "USD", "-15.85"),
        (2**63 - 1, "USD", "92233720368547758.07"),
        (10**40 + 1, "USD", "100000000000000000000000000000000000000.01"),
    ],
)
def test_an_amount_in_major_units_is_exact(amount: int, currency: str, written: str) -> None:
    assert in_major_units(amount, currency) == Decimal(written)


def test_an_amount_of_an_unknown_currency_is_nothing_in_major_units() -> None:
    with pytest.raises(KeyError):
        in_major_units(1, "XXX")
