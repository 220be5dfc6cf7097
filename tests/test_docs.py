"""What the documents say is so."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings
from typer.main import get_command

from api.problems import Code
from cli.main import app
from shared.config.settings import GROUPS, Settings
from shared.lifecycle import HistoryReason, PaymentStatus
from tests.support.repository import PROJECT, ROOT

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")])
CONFIGURATION = ROOT / "docs" / "configuration.md"
LINK = re.compile(r"\[[^\]]*\]\((?!https?://)([^)#]+)\)")


def configuration_tables() -> str:
    """Render what docs/configuration.md has after its introduction: a table for each group of settings."""
    return "\n".join(configuration_table(group) for group in GROUPS)


def configuration_table(group: type[BaseSettings]) -> str:
    title = (inspect.getdoc(group) or "").removesuffix(".")
    rows = [
        f"| `{name.upper()}` | {as_written(field.default)} | {field.description} |"
        for name, field in group.model_fields.items()
    ]
    return "\n".join([f"## {title}", "", "| variable | default | meaning |", "|---|---|---|", *rows, ""])


def as_written(default: Any) -> str:
    """The default of a setting as the environment would have it; empty for none."""
    match default:
        case None:
            return ""
        case SecretStr():
            return "development secret"
        case bool():
            return str(default).lower()
        case float():
            return f"{default:g}"
        case tuple():
            return ",".join(map(as_written, default))
        case _:
            return str(default)


def test_every_setting_is_documented_in_the_words_of_its_declaration() -> None:
    page, tables = CONFIGURATION.read_text(), configuration_tables()
    found = "".join(page.partition("## ")[1:])
    assert found == tables, f"after its introduction, docs/configuration.md has to be:\n\n{tables}"


def test_every_setting_is_documented_and_nothing_else_is() -> None:
    page = CONFIGURATION.read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`([A-Z_0-9]+)`", row)}
    assert documented == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize(
    "name", ["PORT", "PAYMENT_SUCCESS_RATE", "WORKER_CONCURRENCY", "LEASE_S", "WEBHOOK_TIMEOUT", "ACCEPT_QUEUE_MAX"]
)
def test_a_documented_default_is_the_default(name: str) -> None:
    page = CONFIGURATION.read_text()
    row = next(line for line in page.splitlines() if line.startswith("| `") and f"`{name}`" in line.split("|")[1])
    names = re.findall(r"`([A-Z_0-9]+)`", row.split("|")[1])
    default = row.split("|")[2].split(",")[names.index(name)].strip()
    assert float(default) == float(Settings.model_fields[name.lower()].default)


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "images").glob("*.svg")), ids=lambda path: path.name)
def test_a_picture_has_sizes_that_browsers_read(picture: Path) -> None:
    """A size in a style needs a unit. Without one a browser takes the size of the parent, and text leaves its box."""
    assert re.findall(r"font-size:\s*[\d.]+(?![\d.]|px)", picture.read_text()) == []


def test_the_outline_of_the_readme_is_its_index() -> None:
    readme = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert re.findall(r"^## (.+)$", readme, flags=re.MULTILINE) == [
        "Demo", "Dashboard", "Audience", "Load", "Integration", "Operation", "Architecture", "Development", "Licence",
    ]  # fmt: skip
    pictures = re.findall(r"\]\((docs/images/[^)]+)\)", readme)
    names = ("demo.svg", "dashboard.png", "payment.png", "load.svg", "flow.svg", "lifecycle.svg")
    assert pictures == [f"docs/images/{name}" for name in names]


def test_every_error_code_is_documented() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    assert [code for code in Code if f"`{code}`" not in page] == []


def test_the_picture_of_the_lifecycle_names_every_status_and_reason() -> None:
    picture = (ROOT / "docs" / "images" / "lifecycle.svg").read_text()
    words = {*PaymentStatus, *HistoryReason}
    assert [word for word in words if word not in picture] == []


@pytest.mark.parametrize("room", ["cli", "api", "worker", "shared"])
def test_the_picture_of_the_rooms_has_the_floors_that_are_held(room: str) -> None:
    picture = (ROOT / "docs" / "images" / "rooms.svg").read_text()
    drawn = re.findall(r'class="part"[^>]*>([^<]+)<', picture.partition(f'<g id="{room}">')[2].partition("</g>")[0])
    [held] = [one["layers"] for one in PROJECT["tool"]["importlinter"]["contracts"] if one.get("containers") == [room]]
    assert [set(re.split(" [·:] ", floor.replace("/", ""))) for floor in drawn] == [
        set(re.split(" [|:] ", floor)) for floor in held
    ]


@pytest.mark.parametrize("document", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_every_file_that_a_guide_names_is_there(document: Path) -> None:
    """Decisions are left out: they say what was there when they were made."""
    named = re.findall(r"`((?:api|worker|shared|cli|bench|tests)/[\w/]+\.py)", document.read_text())
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    linked = LINK.findall(document.read_text())
    assert [link for link in linked if not (document.parent / link).exists()] == []


def test_every_test_that_the_threat_model_names_is_there() -> None:
    page = (ROOT / "docs" / "threat-model.md").read_text()
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)
    assert len(named) > 20
    assert [
        f"{file}::{name}" for file, name in named if f"def {name}(" not in (ROOT / "tests" / file).read_text()
    ] == []


def test_the_readme_names_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = set(re.findall(r"payments ([a-z]+)(?=[ `,])", readme.split("## Operation")[1]))
    known = set(get_command(app).commands)  # type: ignore[attr-defined]  # Typer answers a group
    assert commands & known >= {"up", "api", "worker", "migrate", "token", "health"}
