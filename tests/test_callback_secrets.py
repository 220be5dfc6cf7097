"""The callback secret over HTTP: everybody has one of their own, and it stays the same."""

from api.schemas.webhooks import CallbackSecret
from tests.support.api_client import RunningApi

pytest_plugins = ["tests.support.api_fixtures"]


async def test_every_principal_has_a_callback_secret_of_its_own_that_stays_the_same(running_api: RunningApi) -> None:
    secrets = []
    for client in (running_api.user(1), running_api.user(2), running_api.service("1"), running_api.user(1)):
        answer = await client.get("/callback-secret")
        CallbackSecret.model_validate(answer.json())
        assert answer.headers["cache-control"] == "no-store"
        secrets.append(answer.json()["secret"])
    assert secrets[0] == secrets[3]
    assert len(set(secrets)) == 3
    assert all(secret.startswith("whsec_") for secret in secrets)
