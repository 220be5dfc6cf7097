"""Addresses of PayPal accounts."""

import pytest

from api.paypal_addresses import ADDRESS_SCENARIOS, mask_address, read_address, scenario_of_address
from shared.lifecycle import FailureCode
from shared.simulation.scenarios import ALWAYS_APPROVED, Scenario, read_scenario, scenario_members


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("shopper@example.com", "shopper@example.com"),
        ("Shopper@Example.COM", "shopper@example.com"),
        ("a+b@example.com", "a+b@example.com"),
        ("o'neill@example.com", "o'neill@example.com"),
        ("1@xn--bcher-kva.example", "1@xn--bcher-kva.example"),
        ("1@bücher.example", "1@xn--bcher-kva.example"),
        ("1@BÜCHER.example", "1@xn--bcher-kva.example"),
        ("1@bu\u0308cher.example", "1@xn--bcher-kva.example"),
        ("1@\uff45xample.com", "1@example.com"),
        ("1@example\u3002com", "1@example.com"),
        ("Declined@PayPal.test", "declined@paypal.test"),
        ("x" * 64 + "@example.com", "x" * 64 + "@example.com"),
    ],
)
def test_two_spellings_of_an_address_are_one_account(text: str, address: str) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "a@b", "@example.com", "a@", "a@@example.com", "a@b@example.com", "a b@example.com",
        " a@example.com", "a@example.com ", "a@example.", "a@example..com", "a@.example.com", ".a@example.com",
        "a.@example.com", "a..b@example.com", "a@-example.com", "a@example-.com", "a@exa_mple.com", "a@xn--.com",
        "a@1.2", "a@[127.0.0.1]", "<a@example.com>", "A <a@example.com>", "mailto:a@example.com",
        '"a b"@example.com', "a@example.com,b@example.com", "a\x00@example.com", "a@example.com\n",
        "a\u200bb@example.com", "a\xadb@example.com", "a\u202eb@example.com", "a\u2060@example.com",
        "a\ufe0f@example.com", "a\u3164@example.com", "a@exam\u200bple.com", "a@exam\xadple.com",
        "\u212a@example.com", "\u0430dmin@example.com", "\uff41@example.com", "\xe4@example.com",
        "a@\U0001f642.com", "\ud800@example.com", "a@localhost", "a@shop.local", "a@shop.invalid",
        "x" * 250 + "@example.com", "a@" + "b" * 64 + ".com",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be an e-mail address such as shopper@example\.com\. [A-Z].*\.$"):
        read_address(text)


@pytest.mark.parametrize(
    ("address", "failure"),
    [
        ("declined@paypal.test", FailureCode.INSTRUMENT_DECLINED),
        ("restricted@paypal.test", FailureCode.PAYER_ACCOUNT_RESTRICTED),
        ("funds@paypal.test", FailureCode.INSUFFICIENT_FUNDS),
    ],
)
def test_a_test_address_names_its_failure(address: str, failure: FailureCode) -> None:
    assert scenario_of_address(address) == Scenario(failure)


@pytest.mark.parametrize(
    ("address", "failure"),
    [("pending@paypal.test", None), ("pending-declined@paypal.test", FailureCode.INSTRUMENT_DECLINED)],
)
def test_a_test_address_that_settles_later_names_how(address: str, failure: FailureCode | None) -> None:
    scenario = scenario_of_address(address)
    assert scenario == Scenario(failure, is_pending=True)
    assert not scenario.is_known_to_0_1
    assert read_scenario(scenario_members(scenario)) == scenario


def test_one_test_address_always_succeeds() -> None:
    assert scenario_of_address("success@paypal.test") == ALWAYS_APPROVED


@pytest.mark.parametrize("address", ["shopper@example.com", "declined@paypal.com", "xdeclined@paypal.test"])
def test_any_other_address_names_no_failure(address: str) -> None:
    assert len(ADDRESS_SCENARIOS) == 6
    assert scenario_of_address(address) is None


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("shopper@example.com", "s***r@example.com"),
        ("bob@example.com", "b***b@example.com"),
        ("ab@example.com", "***@example.com"),
        ("a@example.com", "***@example.com"),
    ],
)
def test_a_masked_address_shows_at_most_two_letters_and_never_all(address: str, masked: str) -> None:
    assert mask_address(address) == masked
