"""What tests in a browser share: sizes of screens, what they measure on a page, and where screenshots go."""

import os
from pathlib import Path

SIZES = {"wide": {"width": 1280, "height": 900}, "narrow": {"width": 380, "height": 800}}
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
BACKGROUND = "() => getComputedStyle(document.body).backgroundColor"


def picture(tmp_path: Path, name: str) -> Path:
    """Where a screenshot goes: into the folder SCREENSHOTS if it is set, to be looked at."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.png"
