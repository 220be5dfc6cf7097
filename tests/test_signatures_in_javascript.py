"""Our signatures, verified by the official JavaScript package, which npm installs from a lock file with hashes."""

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shared.config.settings import Settings
from shared.ids import new_id
from shared.keyring import new_webhook_secret
from shared.webhooks.signatures import sign
from tests.support.delivery_pools import World, running
from tests.support.receivers import receiver
from tests.support.repository import ROOT

pytest_plugins = ["tests.support.delivery_fixtures"]

PACKAGE = ROOT / "tests" / "support" / "standardwebhooks_npm"
INSTALL_S = 90
BODY = '{"type":"payment.completed","data":{"description":"Zwölf Äpfel €"}}'.encode()

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the package is installed. Without npm or its registry the tests fail in CI."""
    folder = tmp_path_factory.mktemp("npm")
    for file in PACKAGE.iterdir():
        shutil.copy(file, folder)
    try:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        problem = done.stderr if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = repr(error)
    if problem is not None:
        reason = f"NOT VERIFIED IN JAVASCRIPT: npm could not install the package standardwebhooks: {problem[-500:]}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


def accepted(package: Path, *webhooks: dict[str, Any]) -> list[bool]:
    """Return whether the JavaScript package accepts each webhook."""
    text = json.dumps(webhooks)
    done = subprocess.run(
        ["node", "verify.mjs"], cwd=package, input=text, capture_output=True, text=True, timeout=30, check=True
    )
    found: list[bool] = json.loads(done.stdout)
    return found


def test_what_we_sign_is_accepted_and_what_was_changed_is_not(package: Path) -> None:
    secret, now = new_webhook_secret(), int(datetime.now(UTC).timestamp())
    headers, body = sign(secret, new_id(), now, BODY), BODY.decode()
    good = {"secret": secret, "headers": headers, "body": body}
    changed = [
        {**good, "secret": new_webhook_secret()},
        {**good, "body": body + " "},
        {**good, "headers": {**headers, "webhook-id": str(new_id())}},
        {**good, "headers": {**headers, "webhook-timestamp": str(now + 1)}},
        {**good, "headers": sign(secret, new_id(), now - 600, BODY)},
    ]
    assert accepted(package, good, *changed) == [True] + [False] * len(changed)


async def test_what_a_receiver_got_is_accepted(package: Path, world: World, settings: Settings) -> None:
    async with receiver() as shop, running(world, settings) as pool:
        endpoint = await world.endpoint(shop.url)
        items = await world.pay(callback_url=shop.url)
        await pool.offer(items)
        await world.until("delivered", items)
    secrets = [endpoint.secret, world.keyring.callback_secret("user:1")]
    verdicts = accepted(
        package,
        *(
            {"secret": secret, "headers": request.headers, "body": request.body.decode()}
            for request in shop.requests
            for secret in secrets
        ),
    )
    assert sorted([verdicts[:2], verdicts[2:]]) == [[False, True], [True, False]]
