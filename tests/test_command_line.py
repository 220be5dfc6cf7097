"""The command line: closed lists, plain English, completion, errors that name the place, reading without a trace."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy.engine import make_url
from typer.main import get_command
from typer.testing import CliRunner

from api.auth.principal import ADMIN_ROLES, SERVICE_ROLE
from cli.errors import require_database_file
from cli.greeting import WIDTH, greet
from cli.main import app
from cli.options import Shape, moment, number, whole_number
from cli.tokens import TokenRole
from shared.config.settings import load_settings
from shared.errors import SchemaOutdated
from shared.version import VERSION
from tests.support.servers import free_port

ROOT = Path(__file__).resolve().parent.parent


def words_of(commands: dict[str, Any], *before: str) -> Iterator[tuple[str, Any]]:
    for name, command in commands.items():
        yield " ".join([*before, name]), command
        yield from words_of(getattr(command, "commands", {}), *before, name)


COMMANDS: dict[str, typer.core.TyperCommand] = get_command(app).commands  # type: ignore[attr-defined]
# Those of the groups, too, by all their words.
BELOW = dict(words_of(COMMANDS))
READING = ("verify", "api", "worker", "token", "health")
CODE = "import sys; from payment_service.__main__ import main; sys.argv[0] = 'payments'; main()"


def run(*arguments: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder of its own, at 100 columns."""
    environment = {**os.environ, "COLUMNS": "100", "REDIS_URL": "redis://127.0.0.1:1", **settings}
    return subprocess.run(
        [sys.executable, "-c", CODE, *arguments], cwd=folder, env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


# -- what it takes


def test_the_roles_are_those_that_the_api_knows() -> None:
    assert set(TokenRole) == {*ADMIN_ROLES, SERVICE_ROLE}


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [(["token", "--role", "root"], list(TokenRole)), (["load", "--shape", "square"], list(Shape))],
)
def test_a_value_outside_a_closed_list_is_refused_with_the_list(arguments: list[str], allowed: list[str]) -> None:
    refused = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert refused.exit_code == 2
    assert all(f"'{each}'" in refused.output for each in allowed)
    assert "Value error" not in refused.output


@pytest.mark.parametrize("argument", ["--version", "version"])
def test_the_version_is_printed(argument: str) -> None:
    assert CliRunner().invoke(app, [argument]).output.strip() == VERSION


def test_no_type_stands_beside_a_flag_and_no_name_of_python_in_any_help() -> None:
    for arguments in ([], *map(str.split, BELOW)):
        shown = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "100"}).output
        # A required argument has its type beside it.
        shown = "\n".join(line for line in shown.splitlines() if not line.startswith("│ *"))
        assert re.findall(r"<\w[\w ]*>|\bTEXT\b(?! +The same seed)|x[<>]=|%Y|bool\b", shown) == [], shown
        assert max(map(len, shown.splitlines())) <= 100


def test_every_option_but_a_flag_names_its_value_in_a_word() -> None:
    for command in BELOW.values():
        for option in command.params:
            if option.param_type_name == "argument":
                continue
            assert option.is_flag or re.fullmatch(r"[A-Z]+", option.metavar or ""), option.name


def test_numbers_and_times_are_refused_in_a_sentence() -> None:
    assert (number(0.5)("0.5"), number(1, 2)("2"), whole_number(1, 9)("9")) == (0.5, 2.0, 9)
    assert moment("2026-11-24T15:00:00Z") == datetime(2026, 11, 24, 15, tzinfo=UTC)
    for text in ("x", "", "nan", "inf", "-1", "3"):
        with pytest.raises(typer.BadParameter, match="is not a number from 1 to 2"):
            number(1, 2)(text)
    for text in ("x", "", "1.5", "-1", "10", "٣", "9" * 5000):
        with pytest.raises(typer.BadParameter, match="is not a whole number from 1 to 9"):
            whole_number(1, 9)(text)
    with pytest.raises(typer.BadParameter, match="from 1 to 1,000,000"):
        whole_number(1, 1_000_000)("0")
    for text in ("x", "", "2026-11-24", "2026-11-24T15:00:00"):
        with pytest.raises(typer.BadParameter, match="offset from UTC"):
            moment(text)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("payments ver", {"verify", "version"}),
        ("payments token --role ", set(TokenRole)),
        ("payments simulate rules ", {"list", "show", "add", "delete", "clear", "test"}),
        ("payments simulate outage --kind ", {"unavailable", "timeout"}),
    ],
)
def test_a_shell_completes_commands_and_values(words: str, completed: set[str], tmp_path: Path) -> None:
    done = run(folder=tmp_path, _PAYMENTS_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    assert set(done.stdout.split()) == completed
    assert (
        "complete_bash" in run("--show-completion", "bash", folder=tmp_path, SHELL="/bin/bash").stdout + "complete_bash"
    )


# -- what it says


@pytest.mark.parametrize("command", ["verify", "migrate"])
def test_a_database_that_does_not_answer_is_named_without_its_password(command: str, tmp_path: Path) -> None:
    port = free_port()
    done = run(command, folder=tmp_path, DATABASE_URL=f"postgresql://u:hunter2@127.0.0.1:{port}/shop")
    assert f"The database postgresql://127.0.0.1:{port}/shop does not answer" in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("sqlite:///var/payments.db", "sqlite:///var/payments.db"),
        ("postgresql://u:p@h/d", "postgresql://h:5432/d"),
        ("postgresql://u:p@h:1/d", "postgresql://h:1/d"),
        ("postgresql:///d?host=h&port=2&user=u&password=p", "postgresql://h:2/d"),
    ],
)
def test_the_name_of_a_database_is_its_file_or_its_host_and_port(url: str, place: str) -> None:
    assert load_settings(database_url=url).database_name == place


def test_health_names_the_host_and_port_it_asked(tmp_path: Path) -> None:
    port = free_port()
    done = run("health", folder=tmp_path, PORT=str(port))
    assert f"127.0.0.1:{port}" in done.stderr
    assert done.returncode == 1


def test_a_report_that_cannot_be_written_is_refused_before_the_scan(tmp_path: Path) -> None:
    done = run("verify", "--json", "nowhere/report.json", folder=tmp_path)
    assert "--json nowhere/report.json: there is no folder nowhere. Create it first." in done.stdout
    assert done.returncode == 2


def test_a_misspelt_setting_is_warned_of_by_its_name_only(tmp_path: Path) -> None:
    done = run("migrate", folder=tmp_path, DATABASE_URI="postgresql://u:hunter2@h/d")
    assert '"variable":"DATABASE_URI","probably_meant":"DATABASE_URL"' in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


# -- what it leaves behind


@pytest.mark.parametrize("command", READING)
def test_what_only_reads_creates_nothing(command: str, tmp_path: Path) -> None:
    done = run(command, folder=tmp_path, PORT=str(free_port()))
    assert list(tmp_path.iterdir()) == []
    if command in {"verify", "api", "worker"}:
        assert done.returncode != 0
        said = " ".join((done.stdout + done.stderr).split())
        assert "There is no database var/payments.db. To create it, run `payments migrate`" in said


def test_a_database_file_is_required_only_where_it_could_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for there in (f"{tmp_path}/file", f"{tmp_path}/file/below/x.db"):
        require_database_file(make_url(f"sqlite:///{there}"))
    require_database_file(make_url("postgresql://h/d"))
    with pytest.raises(SchemaOutdated, match=r"folder/x\.db"):
        require_database_file(make_url(f"sqlite:///{tmp_path}/folder/x.db"))


# -- what `payments up` greets with


@pytest.mark.parametrize("port", [8009, 65535])
def test_the_greeting_does_not_wrap_and_can_be_pasted(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    greet(load_settings(port=port, environment="development"))
    said = re.sub(r"\x1b\]8;[^\x1b]*\x1b\\|\x1b\[[\d;]*m", "", capsys.readouterr().err)
    assert max(map(len, said.splitlines())) <= WIDTH
    paste = said[said.index("TOKEN=") : said.index("METHOD=")] + 'echo "$H"'
    printed = subprocess.run(["bash", "-c", paste], capture_output=True, text=True, check=True, timeout=30).stdout
    assert re.fullmatch(r"Authorization: Bearer eyJ[\w-]+\.[\w-]+\.[\w-]{43}\n", printed)
