"""Fingerprints of cards and PayPal accounts: keyed hashes by which the same one is recognised again."""

from api.cards import CARD_SCENARIOS
from api.paypal_addresses import ADDRESS_SCENARIOS
from shared.keyring import Keyring
from shared.lifecycle import MethodType
from shared.simulation.scenarios import Scenario


def card_fingerprint(keyring: Keyring, method_type: str, digits: str) -> str:
    """Return the fingerprint of a card. The same number as credit and as debit card is two cards."""
    return keyring.fingerprint("card", method_type, digits)


def address_fingerprint(keyring: Keyring, address: str) -> str:
    """Return the fingerprint of a PayPal account, which is known by its address."""
    return keyring.fingerprint("paypal", address)


def known_scenarios(keyring: Keyring) -> dict[str, Scenario]:
    """Return the scenario of every test number and test address by its fingerprint."""
    cards = {
        card_fingerprint(keyring, method_type, digits): scenario
        for digits, scenario in CARD_SCENARIOS.items()
        for method_type in (MethodType.CREDIT_CARD, MethodType.DEBIT_CARD)
    }
    return cards | {address_fingerprint(keyring, address): found for address, found in ADDRESS_SCENARIOS.items()}
