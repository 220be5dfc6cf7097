"""Version 0.1 of the service, from the history of this repository, as processes beside those of this version.

They run with the packages of this environment, which are those of our lock file.
"""

import os
import subprocess
import sys
import tarfile
from functools import partial
from io import BytesIO
from pathlib import Path

from shared.config.settings import Settings
from tests.support.processes import PaymentsProcess

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "b04de7c"
RUN = "import sys; from cli.main import app; app(sys.argv[1:], prog_name='payments')"


def unpack(folder: Path) -> Path:
    """Unpack version 0.1 into `folder` and return it. Fails where the clone does not reach back that far."""
    archive = subprocess.run(["git", "archive", COMMIT], cwd=ROOT, capture_output=True, check=False)
    assert archive.returncode == 0, (
        f"Version 0.1 (commit {COMMIT}) is not in this clone, so the upgrade cannot be tested. Fetch the whole "
        f"history: git fetch --unshallow\n{archive.stderr.decode()}"
    )
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def process_of_0_1(command: str, folder: Path, settings: Settings, *, source: Path) -> PaymentsProcess:
    """Return `payments COMMAND` of version 0.1, whose source is in `source`."""
    return PaymentsProcess(command, folder, settings, program=partial(_become, str(source)))


def _become(source: str, command: str) -> None:
    """Replace this process, which has imported our version, by one that imports 0.1."""
    os.environ["PYTHONPATH"] = source
    os.execv(sys.executable, [sys.executable, "-c", RUN, command])  # noqa: S606 - there is no shell on purpose
