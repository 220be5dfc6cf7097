"""The role of Redis that docs/operations.md describes: everything works with it, and what it lacks is said by name."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from shared.broker.client import Queue
from shared.config.settings import Settings
from tests.support.api_client import token
from tests.support.processes import Shop
from tests.support.redis_processes import RedisProcess
from tests.support.servers import free_port
from tests.support.survival import MakeSettings, Service, a_service, on_postgresql
from tests.support.waiting import eventually

OPERATIONS = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
USER, PASSWORD = "payments", "hunter2hunter2"


def documented_rules() -> list[str]:
    """The rules of the `ACL SETUSER` in the documentation, without its password."""
    [command] = re.findall(r"^ACL SETUSER payments (.*?)^```", OPERATIONS.read_text(), re.MULTILINE | re.DOTALL)
    rules = command.replace("\\\n", " ").split()
    assert rules[:2] == ["on", ">password"]
    return [str(rule) for rule in rules[2:]]


def grant(operator: Redis, rules: list[str]) -> None:
    operator.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *rules)  # type: ignore[no-untyped-call]


def settings_with(make_settings: MakeSettings, server: RedisProcess) -> Settings:
    return make_settings(
        redis_url=f"redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0",
        rate_limit_user="100000/minute",
        metrics_port=free_port(),
    )


async def ends(shop: Shop, payment_id: str) -> bool:
    return (await shop.payment(payment_id))["status"] in {"COMPLETED", "FAILED"}


async def worker_is_ready(service: Service) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(f"http://127.0.0.1:{service.workers[0].settings.metrics_port}/health/ready")


def denied(operator: Redis) -> list[str]:
    entries: Any = operator.acl_log()
    return [str(entry) for entry in entries]


@on_postgresql
async def test_everything_works_with_the_role_that_is_documented(make_settings: MakeSettings, tmp_path: Path) -> None:
    with RedisProcess(tmp_path / "redis") as server, server.client() as operator:
        grant(operator, documented_rules())
        settings = settings_with(make_settings, server)
        secret = settings.jwt_secret_key.get_secret_value()
        admin = {"Authorization": f"Bearer {token(secret, user_id='root', role='admin')}"}
        async with a_service(settings, tmp_path, workers=1) as service:
            for _ in range(3):
                # A long poll subscribes, and a limited user is counted.
                answer = await service.shop.pay(headers={"Prefer": "wait=10"})
                assert answer.status_code == 201, answer.text
            await eventually(lambda: all_ready(service), 20)
            advanced = await service.shop.http.post("/simulation/clock/advance", json={"seconds": 60}, headers=admin)
            assert advanced.status_code == 200, advanced.text
            assert (await service.shop.http.post("/verify/run", headers=admin)).status_code == 202
            await eventually(lambda: has_verified(service, admin), 20)
            await service.shop.http.get(f"http://127.0.0.1:{service.api.settings.port}/metrics")
            # The arq loop counts what it did, and a worker that ends removes its heartbeat.
            assert denied(operator) == []
        assert denied(operator) == []
        known = {rule.removeprefix("+") for rule in documented_rules() if rule.startswith("+")}
        used = {name.removeprefix("cmdstat_").split("|")[0] for name in operator.info("commandstats")}
        operators = {"acl", "ping", "hello", "client", "config", "select", "auth", "command"}
        assert known - used <= {"ping", "unsubscribe", "select", "unwatch", "discard"}, "granted and never used"
        assert used - operators <= known


async def has_verified(service: Service, admin: dict[str, str]) -> bool:
    status: str = (await service.shop.http.get("/verify/run", headers=admin)).json()["status"]
    return status == "done"


async def all_ready(service: Service) -> bool:
    ready = (await service.shop.http.get(f"http://127.0.0.1:{service.api.settings.port}/health/ready")).json()
    return ready["checks"]["redis"] == "ready" and (await worker_is_ready(service)).status_code == 200


@on_postgresql
@pytest.mark.parametrize(
    ("taken", "said"),
    [
        pytest.param(["-zadd"], "NoPermissionError: ", id="publications"),
        pytest.param(["resetkeys", "~arq:*"], "NoPermissionError: ", id="our keys", marks=pytest.mark.slow),
        pytest.param(
            ["resetkeys", "~payments:*"], "NoPermissionError: ", id="the keys of jobs", marks=pytest.mark.slow
        ),
        pytest.param(["-info"], "info", id="what the loops ask at their start", marks=pytest.mark.slow),
    ],
)
async def test_what_the_role_lacks_is_said_and_the_worker_is_not_ready(
    make_settings: MakeSettings, tmp_path: Path, taken: list[str], said: str
) -> None:
    with RedisProcess(tmp_path / "redis") as server, server.client() as operator:
        grant(operator, [*documented_rules(), *taken])
        async with a_service(settings_with(make_settings, server), tmp_path, workers=1) as service:
            # Accepted all the same.
            payment_id = await service.shop.accepted()
            await eventually(lambda: said in service.workers[0].output, 20)
            answer = await worker_is_ready(service)
            assert answer.status_code == 503
            assert not answer.json()["ready"]
            grant(operator, documented_rules())
            await eventually(lambda: ends(service.shop, payment_id), 60)
            await eventually(lambda: all_ready(service), 20)


@on_postgresql
async def test_without_the_channel_and_the_limits_payments_go_on(make_settings: MakeSettings, tmp_path: Path) -> None:
    with RedisProcess(tmp_path / "redis") as server, server.client() as operator:
        without_limits = ["resetkeys", "~arq:*", "~payments:worker*"]
        without_limits += [f"~{queue}*" for queue in Queue]
        grant(operator, [*documented_rules(), "resetchannels", *without_limits])
        async with a_service(settings_with(make_settings, server), tmp_path, workers=1) as service:
            payment_id = await service.shop.accepted()
            await eventually(lambda: ends(service.shop, payment_id), 20)
            await eventually(lambda: service.workers[0].lines("broker.notification_refused"))
            await eventually(lambda: service.api.lines("rate_limits.failed"))
            await eventually(lambda: service.api.lines("long_poll.subscription_lost"))
            await eventually(lambda: all_ready(service), 20)
