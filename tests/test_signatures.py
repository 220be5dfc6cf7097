"""Signatures of Standard Webhooks: the official package accepts ours, and we accept the official package's only."""

import base64
import hmac
import json
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from shared.config.settings import load_settings
from shared.ids import new_id
from shared.keyring import Keyring, as_webhook_secret, new_webhook_secret, open_keyring
from shared.simulation.gateways import GatewayName
from shared.webhooks.signatures import SignatureHeaders, sign, verify

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
BODY = '{"type":"payment.completed","data":{"description":"Zwölf Äpfel"}}'.encode()
SECRET, ANOTHER_SECRET = as_webhook_secret(bytes(range(32))), as_webhook_secret(bytes(32))
RIGHT = Webhook(SECRET).sign("msg_1", NOW, BODY.decode())
WRONG = Webhook(ANOTHER_SECRET).sign("msg_1", NOW, BODY.decode())


def is_valid(signatures: str = RIGHT, *, secret: str = SECRET, body: bytes = BODY, now_s: float = NOW_S) -> bool:
    headers = SignatureHeaders("msg_1", str(NOW_S), signatures)
    return verify(secret, headers, body, now_s=now_s)


# -- what we sign


def test_the_official_package_accepts_our_signature() -> None:
    secret, now = new_webhook_secret(), int(datetime.now(UTC).timestamp())
    assert Webhook(secret).verify(BODY, sign(secret, new_id(), now, BODY)) == json.loads(BODY)


@pytest.mark.parametrize("key_bytes", [24, 32, 64])
def test_a_secret_of_any_length_the_standard_allows_signs(key_bytes: int) -> None:
    secret = "whsec_" + base64.b64encode(bytes(range(key_bytes))).decode()
    Webhook(secret).verify(BODY, sign(secret, new_id(), int(datetime.now(UTC).timestamp()), BODY))


def test_our_signature_is_that_of_the_official_package() -> None:
    secret, webhook_id = new_webhook_secret(), new_id()
    theirs = Webhook(secret).sign(str(webhook_id), NOW, BODY.decode())
    assert sign(secret, webhook_id, int(NOW.timestamp()), BODY)["webhook-signature"] == theirs


@pytest.mark.parametrize("changed", ["body", "webhook-id", "webhook-timestamp", "secret"])
def test_whatever_is_changed_breaks_the_signature(changed: str) -> None:
    secret, now = new_webhook_secret(), int(datetime.now(UTC).timestamp())
    headers = sign(secret, new_id(), now, BODY)
    Webhook(secret).verify(BODY, headers)
    if changed in headers:
        headers[changed] = str(now + 1) if changed == "webhook-timestamp" else str(new_id())
    verifier = Webhook(new_webhook_secret() if changed == "secret" else secret)
    with pytest.raises(WebhookVerificationError):
        verifier.verify(BODY + b" " if changed == "body" else BODY, headers)


# -- what we verify


@pytest.mark.parametrize("offset_s", [-300, 0, 300])
def test_the_official_packages_signature_is_accepted_for_five_minutes_both_ways(offset_s: int) -> None:
    assert is_valid(now_s=NOW_S + offset_s)


@pytest.mark.parametrize("offset_s", [-86_400, -301, -300.5, 300.5, 301, 86_400])
def test_an_older_or_newer_signature_is_refused(offset_s: float) -> None:
    assert not is_valid(now_s=NOW_S + offset_s)


@pytest.mark.parametrize(
    "signatures",
    [
        f"{WRONG} {RIGHT}",
        f"{RIGHT} {WRONG}",
        f"v2,{RIGHT.removeprefix('v1,')} v1a,x {RIGHT}",
        f"nonsense  , v1 {RIGHT} \xff",
    ],
)
def test_one_right_signature_among_others_is_enough(signatures: str) -> None:
    assert is_valid(signatures)


@pytest.mark.parametrize(
    "signatures",
    [
        "", " ", "v1", "v1,", WRONG, RIGHT.removeprefix("v1,"), f"v2,{RIGHT.removeprefix('v1,')}", RIGHT[:-1],
        f"{RIGHT}=", RIGHT.replace("v1", "V1"), RIGHT.replace(",", ", "), f"{WRONG},{RIGHT}", RIGHT + "\xff",
        f"v1,{RIGHT}", RIGHT.swapcase(),
    ],
)  # fmt: skip
def test_no_right_signature_is_refused(signatures: str) -> None:
    assert not is_valid(signatures)


def test_another_secret_and_another_body_are_refused() -> None:
    assert not is_valid(secret=new_webhook_secret())
    assert not is_valid(body=BODY + b" ")


@pytest.mark.parametrize("webhook_id", ["", "a b", "a.b", "ä", "x" * 129, "a\n"])
def test_an_id_of_another_form_is_refused_though_it_is_signed(webhook_id: str) -> None:
    signatures = Webhook(SECRET).sign(webhook_id, NOW, BODY.decode())
    assert not verify(SECRET, SignatureHeaders(webhook_id, str(NOW_S), signatures), BODY, now_s=NOW_S)


@pytest.mark.parametrize("form", ["", " {}", "{} ", "+{}", "{}.0", "{}e0", "0x{:x}", "{:_}", "0000000{}", "{}\n"])
def test_a_timestamp_of_another_form_is_refused_though_it_is_signed(form: str) -> None:
    timestamp = form.format(NOW_S)
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = hmac.digest(key, f"msg_1.{timestamp}.".encode() + BODY, "sha256")
    headers = SignatureHeaders("msg_1", timestamp, f"v1,{base64.b64encode(digest).decode()}")
    assert not verify(SECRET, headers, BODY, now_s=NOW_S)


def test_digits_of_other_scripts_are_no_timestamp() -> None:
    arabic = str(NOW_S).translate({ord("0") + digit: 0x660 + digit for digit in range(10)})
    assert int(arabic) == NOW_S
    assert not verify(SECRET, SignatureHeaders("msg_1", arabic, RIGHT), BODY, now_s=NOW_S)


# -- the secrets of gateways


def keyring(**settings: str) -> Keyring:
    values = {"jwt_secret_key": "j" * 32, "data_key": "d" * 32, "database_url": "sqlite:///x.db", **settings}
    return open_keyring(load_settings(**values))


def test_each_gateway_has_a_secret_of_its_own_that_no_callback_has() -> None:
    """Also where callbacks have the key of the data, and where whoever creates them has the name of a gateway."""
    for ring in (keyring(), keyring(webhook_signing_secret="d" * 32), keyring(webhook_signing_secret="w" * 32)):
        secrets = {ring.notification_secret(gateway) for gateway in GatewayName}
        secrets |= {ring.callback_secret(gateway) for gateway in GatewayName}
        assert len(secrets) == 2 * len(GatewayName)


def test_the_secret_of_callbacks_changes_nothing_for_gateways_and_the_data_key_does() -> None:
    known = keyring().notification_secret("stripe_mock")
    assert keyring(webhook_signing_secret="w" * 32).notification_secret("stripe_mock") == known
    assert keyring(data_key="e" * 32).notification_secret("stripe_mock") != known
