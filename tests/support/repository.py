"""The repository: where it is, its project file, and the files that belong to it."""

import os
import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
IGNORED = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()} | {".git"}


def files() -> list[Path]:
    """What git tracks or would track, also where there is no git."""
    found = []
    for name, folders, leaves in os.walk(ROOT):
        folder = Path(name)
        folders[:] = [child for child in folders if not is_ignored(folder / child)]
        found += [folder / leaf for leaf in leaves if not is_ignored(folder / leaf)]
    return found


def is_ignored(path: Path) -> bool:
    return any(fnmatch(path.name, each) or path.relative_to(ROOT).as_posix() == each for each in IGNORED)
