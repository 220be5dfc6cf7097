"""Generators of clients, installed from lock files, and programs that run with their clients.

Without their registries, Node or Java the tests that need them fail in CI, and elsewhere say what is missing.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.local.service import clean_environment
from tests.support.repository import ROOT

LOCKS = ROOT / "tests" / "support" / "generated_clients"
INSTALL_S = 300
RUN_S = 120


def install_python(folder: Path) -> Path:
    """Return the folder of programs of a new virtual environment with the generators of Python clients."""
    _run([sys.executable, "-m", "venv", str(folder)], purpose="a virtual environment")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    _run([*pip, "install", "--require-hashes", "-r", str(LOCKS / "requirements.txt")], purpose="the packages")
    return folder / "bin"


def install_typescript(folder: Path) -> Path:
    """Return the folder in which npm has installed the generator of types, and the compiler."""
    install_programs("node=nodejs", "npm")
    shutil.copytree(LOCKS / "typescript", folder)
    _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder=folder, purpose="the packages of npm")
    return folder


def install_programs(*packages: str) -> None:
    """Make sure of programs of Debian packages."""
    _run([str(ROOT / ".ci" / "packages"), *packages], purpose="programs of Debian")
    for package in packages:
        if shutil.which(package.partition("=")[0]) is None:
            _is_missing(f"there is no {package.partition('=')[0]}")


async def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """What a program prints, which must end well."""
    done = await asyncio.to_thread(
        subprocess.run,
        [str(part) for part in command],
        cwd=folder,
        env={**clean_environment(os.environ), "NO_PROXY": "127.0.0.1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def _run(command: list[str], *, purpose: str, folder: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        _is_missing(f"{purpose} could not be installed: {error!r}")
    else:
        if done.returncode:
            _is_missing(f"{purpose} could not be installed: {done.stderr[-500:]}")


def _is_missing(what: str) -> None:
    reason = f"NOT TESTED WITH A GENERATED CLIENT: {what}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
