"""Builds the wheel: all code under the one name `payment_service`, although the repository keeps it in rooms.

Everything else about the project is in pyproject.toml. See docs/decisions/0021-one-name-in-the-wheel.md.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOMS = ("api", "worker", "shared", "cli")
# Files of the folder `alembic`: its name is the library's, so the wheel calls it `migrations`.
MIGRATION_FILES = ("env.py", "script.py.mako", "versions/*.py")


class BuildUnderOneName(build_py):
    """Build the packages, and move them into `payment_service`. An editable installation stays as the checkout is."""

    def run(self) -> None:
        """Build into `build_lib`, from which the wheel is made."""
        if self.editable_mode:
            super().run()
            return
        # Files that an earlier build left behind would be part of this one.
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        built = Path(self.build_lib)
        package = built / "payment_service"
        for room in ROOMS:
            shutil.move(built / room, package / room)
        for pattern in MIGRATION_FILES:
            for source in sorted(Path("alembic").glob(pattern)):
                target = package / "migrations" / source.relative_to("alembic")
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target))


setup(cmdclass={"build_py": BuildUnderOneName})
