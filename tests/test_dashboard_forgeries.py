"""Sessions and links of the dashboard that somebody has written into Redis: they sign nobody in."""

import hashlib
from collections.abc import MutableMapping
from dataclasses import replace
from time import time
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from api.dashboard.sessions import LINK_KEY, SESSION_KEY, issue_link
from shared.runtime import Runtime
from tests.support.api_client import RunningApi
from tests.support.dashboards import bearer, signed_in, visitor

pytest_plugins = ["tests.support.api_fixtures"]
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked


def link_key(secret: str) -> str:
    return LINK_KEY + hashlib.sha256(secret.encode()).hexdigest()


def require_said(logs: list[MutableMapping[str, Any]], forged: bytes | str | None) -> None:
    """It was logged that a value was dropped, and nothing of the value."""
    [line] = [line for line in logs if line["event"] == "redis.value_refused"]
    assert line["log_level"] == "warning"
    assert set(line) == {"event", "log_level", "wanted", "problem"}
    assert str(forged) not in {str(value) for value in line.values()}
    assert max(len(str(value)) for value in line.values()) < 40


async def test_whoever_writes_into_redis_signs_nobody_in(running_api: RunningApi, runtime: Runtime) -> None:
    redis = runtime.broker.arq_connection
    user = await signed_in(running_api, bearer(running_api, None, "mallory"))
    [of_user] = [key async for key in redis.scan_iter(f"{SESSION_KEY}*")]
    own = await redis.get(of_user) or b""
    admin = await signed_in(running_api, bearer(running_api))
    [of_admin] = [key async for key in redis.scan_iter(f"{SESSION_KEY}*") if key != of_user]
    mallory = {"user_id": "mallory", "role": "admin", "api_key_id": None}
    made_up = {"principal": mallory, "expires_at": time() + 60, "form": "f", "key_hash": None}
    payload = {"key": of_user.decode(), "session": made_up}
    for forged in (
        await redis.get(of_admin),
        own[:-1],
        own + b"x",
        b"\xff",
        b"",
        b"{}",
        orjson.dumps(made_up),
        orjson.dumps(payload),
        replace(runtime.keyring, session_key=b"another").seal_session(orjson.dumps(payload)),
        runtime.keyring.seal_cursor(orjson.dumps(payload)),
        # Ours, in another form: of a version that is not there yet.
        runtime.keyring.seal_session(orjson.dumps({"key": of_user.decode(), "principal": "mallory"})),
    ):
        await redis.set(of_user, forged or b"")
        with capture_logs() as logs:
            assert (await user.get("")).headers["location"] == "/dashboard/sign-in"
        require_said(logs, forged)
    # What is forged has the right form: with our MAC it would be a session.
    await redis.set(of_user, runtime.keyring.seal_session(orjson.dumps(payload)))
    assert (await user.get("")).status_code == 200
    await redis.delete(of_user)
    await redis.rpush(of_user, "of another type")  # type: ignore[misc]  # the stubs allow no await
    assert (await user.get("")).headers["location"] == "/dashboard/sign-in"
    assert (await admin.get("")).status_code == 200
    # A link, and a session in the place of one.
    name = link_key("made-up")
    link = orjson.dumps({"key": name, "expires_at": time() + 60})
    for forged in (
        b"1",
        await redis.get(of_admin),
        replace(runtime.keyring, session_key=b"another").seal_session(link),
    ):
        await redis.set(name, forged or b"")
        with capture_logs() as logs:
            answer = await visitor(running_api).get("/sign-in", params={"link": "made-up"})
        assert answer.status_code == 403
        require_said(logs, forged)


async def test_a_session_that_redis_keeps_too_long_has_ended(running_api: RunningApi, runtime: Runtime) -> None:
    redis = runtime.broker.arq_connection
    browser = await signed_in(running_api, bearer(running_api))
    [name] = [key async for key in redis.scan_iter(f"{SESSION_KEY}*")]
    stored = orjson.loads(runtime.keyring.open_session((await redis.get(name) or b"").decode()) or b"")
    for left_s, status in ((60, 200), (-1, 303)):
        stored["session"]["expires_at"] = time() + left_s
        await redis.set(name, runtime.keyring.seal_session(orjson.dumps(stored)))
        assert (await browser.get("")).status_code == status


async def test_a_link_that_is_old_or_of_another_does_not_work(running_api: RunningApi, runtime: Runtime) -> None:
    redis = runtime.broker.arq_connection
    link, other = [await issue_link(runtime.broker, runtime.keyring) for _ in range(2)]
    name = link_key(link)
    kept, kept_other = [await redis.get(link_key(secret)) or b"" for secret in (link, other)]
    await redis.set(name, kept_other)
    assert (await visitor(running_api).get("/sign-in", params={"link": link})).status_code == 403
    old = orjson.dumps({"key": name, "expires_at": time() - 1})
    await redis.set(name, runtime.keyring.seal_session(old))
    assert (await visitor(running_api).get("/sign-in", params={"link": link})).status_code == 403
    await redis.set(name, kept)
    assert (await visitor(running_api).get("/sign-in", params={"link": link})).status_code == 303
