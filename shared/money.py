"""Currencies, and how an amount is written for people and for services that count in major units.

Amounts are integers in minor units: no float is ever made here. The table is ISO 4217, list one, as of amendment 180
(Bulgaria's euro, 1 January 2026), without funds codes, precious metals, units of account and test codes, because no
order is paid in them.
"""

from decimal import Decimal

TWO_DECIMALS = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC CUP
    CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES
    KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK
    NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB
    TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG
"""
NO_DECIMALS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"
THREE_DECIMALS = "BHD IQD JOD KWD LYD OMR TND"

EXPONENTS: dict[str, int] = {
    code: digits
    for digits, codes in ((2, TWO_DECIMALS), (0, NO_DECIMALS), (3, THREE_DECIMALS))
    for code in codes.split()
}


def is_currency(code: str) -> bool:
    """Return whether `code` is an active currency of ISO 4217, in upper case."""
    return code in EXPONENTS


def exponent(code: str) -> int:
    """Return how many decimals the currency has: 2 for USD, as 100 minor units are 1 USD, and 0 for JPY.

    Raises KeyError for an unknown currency.
    """
    return EXPONENTS[code]


def in_major_units(amount: int, currency: str) -> Decimal:
    """Return `amount` minor units in major units, exactly: 15.85 for 1585 and USD.

    Raises KeyError for an unknown currency.
    """
    return Decimal((amount < 0, tuple(map(int, str(abs(amount)))), -exponent(currency)))


def format_amount(amount: int, currency: str) -> str:
    """Return `amount` minor units as people write them: "15.85 USD", "100 JPY".

    Raises KeyError for an unknown currency.
    """
    decimals = exponent(currency)
    if decimals == 0:
        return f"{amount} {currency}"
    whole, part = divmod(abs(amount), 10**decimals)
    return f"{'-' if amount < 0 else ''}{whole}.{part:0{decimals}} {currency}"
