"""What the errors of a database mean: whose fault each is, by its SQLSTATE or by SQLite's name for it."""

import re
import socket
import sqlite3
import ssl

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InvalidRequestError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from api.problem_handlers import as_problem
from api.problems import Code
from shared.database.engine import Database
from shared.database.failures import is_connection_spoilt, is_server_stale, meaning_of
from shared.errors import (
    DatabaseRefused,
    DatabaseUnavailable,
    PaymentsError,
    StatementFailed,
    ValueRefused,
    WriteConflict,
)
from tests.support.survival import on_postgresql

SQLSTATES: dict[type[PaymentsError], list[str]] = {
    ValueRefused: ["22001", "22003", "22021", "22P05", "23502", "23503", "23505", "23514", "23P01"],
    WriteConflict: ["40001", "40P01", "26000", "42P05"],
    DatabaseRefused: ["28000", "28P01", "3D000", "3F000", "42501"],
    DatabaseUnavailable: [
        "08000", "08006", "08P01", "25006", "25P02", "25P03", "40002", "40003", "42P01", "42703", "42704", "42883",
        "53100", "53200", "53300", "55000", "55006", "55P03", "57014", "57P01", "57P02", "57P03", "57P05", "58030",
        "58P01", "F0000", "XX000", "XX001",
    ],
    StatementFailed: ["0A000", "21000", "42601", "42804", "42P07", "42P18", "54000", "54011", "P0001", "ZZ999"],
}  # fmt: skip


def postgres_error(state: str, message: str = "m") -> asyncpg.PostgresError:
    error: asyncpg.PostgresError = asyncpg.PostgresError.new({"C": state, "M": message})
    return error


@pytest.mark.parametrize(("kind", "state"), [(kind, state) for kind, states in SQLSTATES.items() for state in states])
def test_a_sqlstate_says_whose_fault_it_is(kind: type[PaymentsError], state: str) -> None:
    assert type(meaning_of(postgres_error(state))) is kind


def test_of_all_states_that_the_driver_knows_only_classes_22_and_23_are_about_a_value() -> None:
    errors = [each for each in vars(asyncpg.exceptions).values() if isinstance(each, type)]
    known = {each.sqlstate for each in errors if issubclass(each, asyncpg.PostgresError) and each.sqlstate}
    assert len(known) > 200
    for state in known:
        meaning = meaning_of(postgres_error(state))
        assert meaning is not None
        assert isinstance(meaning, ValueRefused) == (state[:2] in {"22", "23"}), state
        assert as_problem(meaning).code is (Code.VALIDATION_ERROR if state[:2] in {"22", "23"} else Code.UNAVAILABLE)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError(), DatabaseUnavailable),
        (TimeoutError(), DatabaseUnavailable),
        (socket.gaierror(), DatabaseUnavailable),
        (PoolTimeoutError(), DatabaseUnavailable),
        (ssl.SSLCertVerificationError("x"), DatabaseRefused),
        (ssl.SSLEOFError(), DatabaseUnavailable),
        (asyncpg.InternalClientError("got result for unknown protocol state"), DatabaseUnavailable),
        (asyncpg.InvalidCachedStatementError("cached statement plan is invalid"), WriteConflict),
        (asyncpg.InterfaceError("the server expects 1 argument"), StatementFailed),
        (InvalidRequestError("x"), StatementFailed),
        (StatementError("x", "SELECT", None, ValueError()), StatementFailed),
        (StatementError("x", "SELECT", None, UnicodeEncodeError("utf-8", "", 0, 1, "")), ValueRefused),
        (OverflowError(), ValueRefused),
        (UnicodeEncodeError("utf-8", "", 0, 1, ""), ValueRefused),
        (ValueError(), None),
        (KeyError(), None),
        (PaymentsError(), None),
    ],
)
def test_errors_without_a_sqlstate(error: Exception, kind: type[PaymentsError] | None) -> None:
    assert type(meaning_of(error)) is (kind or type(None))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SQLITE_BUSY", DatabaseUnavailable),
        ("SQLITE_BUSY_SNAPSHOT", DatabaseUnavailable),
        ("SQLITE_FULL", DatabaseUnavailable),
        ("SQLITE_READONLY_DBMOVED", DatabaseUnavailable),
        ("SQLITE_IOERR_WRITE", DatabaseUnavailable),
        ("SQLITE_NOMEM", DatabaseUnavailable),
        ("SQLITE_CONSTRAINT_CHECK", ValueRefused),
        ("SQLITE_TOOBIG", ValueRefused),
        ("SQLITE_NOTADB", DatabaseRefused),
        ("SQLITE_CORRUPT", DatabaseRefused),
        ("SQLITE_MISUSE", StatementFailed),
    ],
)
def test_sqlites_names(name: str, kind: type[PaymentsError]) -> None:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorname = name
    assert type(meaning_of(error)) is kind
    assert type(meaning_of(DBAPIError("s", None, error))) is kind


@pytest.mark.parametrize(
    "message", ["unsupported startup parameter: x", "no such database: x", "SASL authentication failed"]
)
def test_a_pooler_refuses_with_the_state_of_a_broken_connection(message: str) -> None:
    assert type(meaning_of(postgres_error("08P01", message))) is DatabaseRefused
    assert type(meaning_of(postgres_error("08P01", "pgbouncer cannot connect to server"))) is DatabaseUnavailable


def test_connections_are_dropped_where_a_new_one_may_help() -> None:
    assert is_server_stale(postgres_error("25006"))
    assert not is_server_stale(postgres_error("26000"))
    for state in ("25006", "25P02", "26000", "42P05", "57P01", "XX000"):
        assert is_connection_spoilt(postgres_error(state)), state
    for state in ("22001", "23505", "40P01", "42501", "42P01", "53300", "55P03"):
        assert not is_connection_spoilt(postgres_error(state)), state
    assert is_connection_spoilt(TimeoutError())
    assert is_connection_spoilt(ConnectionResetError())


def test_a_meaning_repeats_no_value_of_a_statement() -> None:
    for state in ("23505", "22001", "42P01", "42601", "57014"):
        assert "4711" not in str(meaning_of(postgres_error(state, "Key (card)=(4711) exists")))
    assert "password authentication failed" in str(
        meaning_of(postgres_error("28P01", "password authentication failed"))
    )


@pytest.mark.parametrize("statement", ["SELECT * FROM away", "SELECT away FROM payments"])
async def test_what_a_restore_has_not_made_yet_is_unavailable(database: Database, statement: str) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        async with database.read() as connection:
            await connection.execute(text(statement))
    assert type(caught.value) is DatabaseUnavailable


def test_a_defect_is_logged_with_its_traceback_and_not_for_every_request(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(asyncpg.PostgresError) as caught:
        raise postgres_error("ZZ123")
    assert all(isinstance(meaning_of(caught.value), StatementFailed) for _ in range(3))
    out = capsys.readouterr().out
    assert len(re.findall(r"^\d.*\] database.statement_failed", out, re.MULTILINE)) == 1
    assert "Traceback" in out


async def test_a_statement_that_is_wrong_is_a_defect(database: Database) -> None:
    with pytest.raises(StatementFailed):
        async with database.transaction() as connection:
            await connection.execute(text("SELEC 1"))


@on_postgresql
async def test_a_prepared_statement_that_is_lost_is_tried_again_on_another_connection(
    database: Database,
) -> None:
    async with database.read() as connection:
        await connection.execute(text("SELECT 4711"))
        await connection.exec_driver_sql("DEALLOCATE ALL")
    with pytest.raises(WriteConflict):
        async with database.read() as connection:
            await connection.execute(text("SELECT 4711"))
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT 4711"))).scalar_one() == 4711
