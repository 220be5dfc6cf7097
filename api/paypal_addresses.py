"""The addresses of PayPal accounts: which are valid, when two are the same, and the scenarios of test addresses.

An address is read once, while its payment method is added. Only its masked form and a keyed hash are stored.
"""

from email_validator import EmailNotValidError, validate_email

from shared.lifecycle import FailureCode
from shared.simulation.scenarios import ALWAYS_APPROVED, PENDING, PENDING_THEN_DECLINED, Scenario

ADDRESS_SCENARIOS = {
    "success@paypal.test": ALWAYS_APPROVED,
    "declined@paypal.test": Scenario(FailureCode.INSTRUMENT_DECLINED),
    "restricted@paypal.test": Scenario(FailureCode.PAYER_ACCOUNT_RESTRICTED),
    "funds@paypal.test": Scenario(FailureCode.INSUFFICIENT_FUNDS),
    "pending@paypal.test": PENDING,
    "pending-declined@paypal.test": PENDING_THEN_DECLINED,
}


def read_address(text: str) -> str:
    """Return the form of an address by which two are the same account: lower case, the domain in ASCII (RFC 5891).

    The part before the @ must be ASCII: other scripts have letters that look alike and characters that nobody sees.
    Nothing is looked up. Raises ValueError, whose text says what is wrong.
    """
    try:
        # Addresses below `.test` are for tests (RFC 2606).
        found = validate_email(text, check_deliverability=False, allow_smtputf8=False, test_environment=True)
    except EmailNotValidError as error:
        raise ValueError(f"must be an e-mail address such as shopper@example.com. {error}") from None
    return f"{found.local_part}@{found.ascii_domain}".lower()


def scenario_of_address(address: str) -> Scenario | None:
    """Return what a PayPal test address makes of every charge; None for every other address."""
    return ADDRESS_SCENARIOS.get(address)


def mask_address(address: str) -> str:
    """Return the address as `s***r@example.com`: at most the first and the last letter of its local part are kept."""
    local, _, domain = address.rpartition("@")
    if len(local) <= 2:  # noqa: PLR2004 - first and last letter would be the whole of it
        return f"***@{domain}"
    # Always three stars, so that the mask does not give away the length.
    return f"{local[0]}***{local[-1]}@{domain}"
