"""`payments keys`: the first API key without an API, on both databases, and beside a running one."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import typer
from sqlalchemy import delete, select
from typer.testing import CliRunner

from cli.keys.command import NAME, _confirmed, create
from cli.main import app
from shared.api_keys import KEY_FORM, KEY_NAME, KeyRole
from shared.config.settings import Settings
from shared.database.api_key_tables import api_keys
from shared.database.engine import Database
from shared.errors import CommitUnknown
from tests.support.api_client import RunningApi, created_key, problem
from tests.support.processes import PaymentsProcess, Shop, environment_of, processes
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures"]

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
REFUSED_WITHIN_S = 10
UNKNOWN_ID = "01a21e56-d069-72e6-9f2c-44be0a381c81"


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left behind."""

    code: int
    output: str
    messages: str

    @property
    def words(self) -> str:
        return " ".join((self.output + self.messages).split())


async def keys(settings: Settings, *arguments: str) -> Done:
    """`payments keys`, in a thread: it runs a loop of its own."""
    done = await asyncio.to_thread(CliRunner().invoke, app, ["keys", *arguments], env=environment_of(settings))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


async def test_the_first_key_is_printed_alone_and_works(running_api: RunningApi, settings: Settings) -> None:
    done = await keys(settings, "create", "--name", "ops", "--role", "admin")
    assert done.code == 0, done.words
    key = done.output.removesuffix("\n")
    assert KEY_FORM.fullmatch(key)
    assert "of admin:ops" in done.messages
    assert key not in done.messages
    first = running_api.bearing(key)
    await created_key(first, name="orders")
    listed = (await first.get("/api-keys")).json()["api_keys"]
    assert [(one["name"], one["created_by"]) for one in listed] == [("orders", "admin:ops"), ("ops", "cli")]


async def test_a_key_has_the_role_of_a_service_and_no_end_if_nothing_else_is_said(
    settings: Settings, database: Database
) -> None:
    await keys(settings, "create", "--name", "orders")
    await keys(settings, "create", "--name", "orders", "--days", "1.5")
    async with database.read() as connection:
        found = (await connection.execute(select(api_keys).order_by(api_keys.c.id))).all()
    assert {row.role for row in found} == {"service"}
    assert found[0].expires_at is None
    assert (found[1].expires_at - found[1].created_at).total_seconds() == 1.5 * 86_400


async def test_keys_are_listed_and_revoked(running_api: RunningApi, settings: Settings) -> None:
    key = (await keys(settings, "create", "--name", "orders", "--days", "1")).output.strip()
    await keys(settings, "create", "--name", "ops", "--role", "admin")
    heading, newest, oldest = (await keys(settings, "list")).output.splitlines()
    assert heading.split("  ")[0] == "id"
    assert ("admin:ops" in newest, "service:orders" in oldest) == (True, True)
    assert f"{key[:11]}..." in oldest
    assert key[:14] not in oldest
    assert oldest.endswith("never")  # its last use
    revoked = await keys(settings, "revoke", oldest.split()[0])
    assert (revoked.code, "of service:orders" in revoked.messages) == (0, True)
    problem(await running_api.bearing(key).get("/payments"), 401, "invalid_token")
    assert len((await keys(settings, "list")).output.splitlines()) == 2
    assert (await keys(settings, "revoke", oldest.split()[0])).code == 1


@ON_SQLITE
@pytest.mark.parametrize("key_id", [UNKNOWN_ID, "1", "orders", "sk_sim_x"])
async def test_an_unknown_id_is_said(settings: Settings, key_id: str) -> None:
    done = await keys(settings, "revoke", key_id)
    assert (done.code, "`payments keys list` shows the ids" in done.words) == (1, True)


@ON_SQLITE
@pytest.mark.parametrize(
    "arguments",
    [("--name", "a b"), ("--name", ""), ("--name", "x" * 65), ("--name", "a\n"), ("--name", "x", "--role", "user"),
     ("--name", "x", "--days", "0"), ("--name", "x", "--days", "nan"), ("--name", "x", "--days", "1e300"), ()],
)  # fmt: skip
async def test_a_wrong_option_creates_nothing(settings: Settings, database: Database, arguments: tuple[str]) -> None:
    assert (await keys(settings, "create", *arguments)).code == 2
    async with database.read() as connection:
        assert (await connection.execute(select(api_keys))).all() == []


def test_the_commands_names_and_roles_are_those_of_the_api() -> None:
    assert f"^{NAME.pattern}$" == KEY_NAME
    assert get_args(get_args(get_type_hints(create, include_extras=True)["role"])[0]) == tuple(KeyRole)


async def test_a_key_of_another_data_key_is_not_known_to_the_api(
    running_api: RunningApi, make_settings: Callable[..., Settings]
) -> None:
    done = await keys(make_settings(data_key="a" * 32), "create", "--name", "orders")
    assert done.code == 0, done.words
    problem(await running_api.bearing(done.output.strip()).get("/payments"), 401, "invalid_token")


# -- where it cannot work


@ON_SQLITE
@pytest.mark.parametrize("arguments", [("list",), ("create", "--name", "x"), ("revoke", UNKNOWN_ID)])
async def test_no_database_is_made(settings: Settings, tmp_path: Path, arguments: tuple[str]) -> None:
    folder = tmp_path / "nowhere"
    done = await keys(settings.model_copy(update={"database_url": f"sqlite:///{folder}/x.db"}), *arguments)
    assert done.code == 2
    assert "payments migrate" in done.words
    assert not folder.exists()


@pytest.fixture
def unmigrated(settings: Settings, empty_database_url: str) -> Settings:
    """Settings for a database that is there and has no tables."""
    if settings.is_sqlite:
        Path(empty_database_url.removeprefix("sqlite:///")).touch()
    return settings.model_copy(update={"database_url": empty_database_url})


async def test_an_older_schema_is_named_with_the_command_that_helps(unmigrated: Settings) -> None:
    done = await keys(unmigrated, "list")
    assert (done.code, "run `payments migrate`" in done.words) == (1, True)


def test_a_change_that_was_not_confirmed_ends_with_1() -> None:
    def lost() -> None:
        raise CommitUnknown("08006")

    with pytest.raises(typer.Exit) as caught:
        _confirmed(lost)
    assert caught.value.exit_code == 1


@ON_SQLITE
async def test_a_database_that_does_not_answer_is_said_without_its_password(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": "postgresql+asyncpg://payments:hush@127.0.0.1:1/payments"})
    done = await keys(away, "list")
    assert (done.code, "does not answer" in done.words) == (1, True)
    assert "hush" not in done.words


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_a_database_that_refuses_is_said(settings: Settings) -> None:
    missing = settings.sqlalchemy_url.set(database="missing").render_as_string(hide_password=False)
    done = await keys(settings.model_copy(update={"database_url": missing}), "list")
    assert (done.code, "DATABASE_URL" in done.words, "cannot be used" in done.words) == (2, True, True)


# -- beside a running service


async def asked(shop: Shop, key: str) -> int:
    """The status of an answer to the key."""
    answer = await shop.http.get("/webhook-endpoints", headers={"Authorization": f"Bearer {key}"})
    return answer.status_code


async def test_verify_checks_the_idempotency_keys_of_api_keys(running_api: RunningApi, settings: Settings) -> None:
    answer = await running_api.admin().post(
        "/api-keys", json={"name": "orders", "role": "service"}, headers={"Idempotency-Key": "k"}
    )
    await running_api.admin().delete(f"/api-keys/{answer.json()['id']}")
    verified = await asyncio.to_thread(CliRunner().invoke, app, ["verify"], env=environment_of(settings))
    assert verified.exit_code == 0, verified.output
    async with running_api.database.transaction() as connection:
        await connection.execute(delete(api_keys))
    verified = await asyncio.to_thread(CliRunner().invoke, app, ["verify"], env=environment_of(settings))
    assert (verified.exit_code, "dangling_idempotency_key" in verified.output) == (1, True)


@pytest.mark.slow
async def test_a_key_outlives_the_api_and_is_refused_by_a_running_one_after_its_revocation(
    settings: Settings, tmp_path: Path
) -> None:
    key = (await keys(settings, "create", "--name", "orders")).output.strip()
    api = PaymentsProcess("api", tmp_path / "api", settings)
    with processes(api):
        await api.ready()
        async with Shop(settings) as shop:
            assert await asked(shop, key) == 200
        api.kill()
        await api.start().ready()
        async with Shop(settings) as shop:
            assert await asked(shop, key) == 200
            key_id = (await keys(settings, "list")).output.splitlines()[1].split()[0]
            await keys(settings, "revoke", key_id)

            async def is_refused() -> bool:
                return await asked(shop, key) == 401

            await eventually(is_refused, REFUSED_WITHIN_S)
        assert api.lines("api_key.refused", api_key_id=key_id)
        assert key not in api.output + api.errors
