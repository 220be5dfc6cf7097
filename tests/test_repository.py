"""What must hold for a fresh checkout on another machine."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_packages  # type: ignore[import-untyped]

from tests.support.repository import PROJECT, ROOT, files

EXTRAS = PROJECT["project"]["optional-dependencies"]
# Letters are put apart so that this file does not find itself.
FOREIGN = re.compile(
    r"(?<![\w.$}~-])/(root|work|home|Users)/|[i]ndex-url|[f]ind-links|[p]ypi\.org/simple|[p]ythonhosted"
)
TARGETS = {
    "help",
    "setup",
    "demo",
    "run",
    "test",
    "test-slow",
    "test-browser",
    "check",
    "audit",
    "bench",
    "chaos",
    "lock",
    "clean",
}


def locked(name: str) -> dict[str, str]:
    """Versions by canonical name, as one requirements file pins them."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", (ROOT / name).read_text(), flags=re.MULTILINE)
    return {canonicalize_name(package): version for package, version in pins}


def test_no_file_names_a_machine_or_an_index_of_packages() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files()
        if (match := FOREIGN.search(path.read_text(errors="ignore")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-dev.txt", "tests/support/generated_clients/requirements.txt"]
)
def test_every_locked_package_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert re.search(r"^\s*-", text, flags=re.MULTILINE) is None or set(
        re.findall(r"^\s*(--?[a-z-]+)", text, flags=re.MULTILINE)
    ) == {"--hash"}
    blocks = re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    assert len(blocks) == len(locked(name)) > 20
    for block in blocks:
        assert "--hash=sha256:" in block, block.split()[0]


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("package-lock.json")), ids=lambda path: path.parent.name)
def test_every_package_of_npm_has_a_hash_and_no_address(path: Path) -> None:
    root, *packages = json.loads(path.read_text())["packages"].values()
    assert packages
    for package in packages:
        assert "resolved" not in package
        assert package["integrity"].startswith("sha512-")
    # The packages that are asked for have exact versions.
    assert all(re.fullmatch(r"[0-9.]+", version) for version in root["dependencies"].values())


@pytest.mark.parametrize(
    ("name", "requirements"),
    [
        ("requirements.txt", [*PROJECT["project"]["dependencies"], *EXTRAS["local"], *EXTRAS["build"]]),
        (
            "requirements-dev.txt",
            [*PROJECT["project"]["dependencies"], *(part for extra in EXTRAS.values() for part in extra)],
        ),
    ],
)
def test_the_lock_is_what_pyproject_asks_for(name: str, requirements: list[str]) -> None:
    pins = locked(name)
    for requirement in map(Requirement, requirements):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, f"{requirement}: run `make lock`"


def test_development_runs_on_the_versions_of_production() -> None:
    assert locked("requirements.txt").items() <= locked("requirements-dev.txt").items()


def test_what_is_installed_is_what_is_built_with() -> None:
    assert PROJECT["build-system"]["requires"] == EXTRAS["build"]


def test_one_version_of_python_everywhere() -> None:
    assert (ROOT / ".python-version").read_text().strip() == "3.13"
    assert PROJECT["project"]["requires-python"] == ">=3.13"
    assert PROJECT["tool"]["ruff"]["target-version"] == "py313"
    assert PROJECT["tool"]["mypy"]["python_version"] == "3.13"
    assert 'wanted="3.13"' in (ROOT / ".ci/setup").read_text()
    assert "--python-version 3.13" in (ROOT / "Makefile").read_text()
    for name in ("Dockerfile.api", "Dockerfile.worker"):
        assert set(re.findall(r"^FROM python:(\S+)", (ROOT / name).read_text(), flags=re.MULTILINE)) == {"3.13-slim"}


def test_every_package_is_packaged() -> None:
    rooms = ("api", "worker", "shared", "cli")
    written = {".".join(path.parent.relative_to(ROOT).parts) for room in rooms for path in (ROOT / room).rglob("*.py")}
    [(how, options)] = PROJECT["tool"]["setuptools"]["packages"].items()
    assert how == "find"
    assert set(find_packages(str(ROOT), **options)) == {*written, "payment_service"}


def test_the_licence_is_named_wherever_one_looks_for_it() -> None:
    assert PROJECT["project"]["license"] == "MIT"
    assert PROJECT["project"]["license-files"] == ["LICENSE"]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")
    assert "[MIT](LICENSE)" in (ROOT / "README.md").read_text()


def test_make_help_lists_every_target() -> None:
    make = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[1] for line in make.stdout.splitlines()} == TARGETS
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert phony is not None
    assert set(phony.group(1).split()) == TARGETS


@pytest.mark.parametrize("name", ["browser", "run", "secrets", "setup", "uv"])
def test_the_scripts_are_executable_and_parse(name: str) -> None:
    script = ROOT / ".ci" / name
    assert os.access(script, os.X_OK)
    shell = script.read_text().splitlines()[0].split("/")[-1].split()[-1]
    subprocess.run([shell, "-n", script], check=True, timeout=60)
