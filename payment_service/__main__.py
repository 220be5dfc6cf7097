"""Runs the command `payments`: `payments ...` and `python -m payment_service ...` are the same."""

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def main() -> None:
    """Run the command with this installation's own code, whatever else on the path is called `api` or `shared`."""
    is_wheel = (PACKAGE / "cli").is_dir()
    sys.path.insert(0, str(PACKAGE if is_wheel else PACKAGE.parent))
    from cli.main import app  # noqa: PLC0415 - the line above decides which one

    app(prog_name="payments")


if __name__ == "__main__":
    main()
