"""nginx in front of an installation, as `deploy/nginx` has it."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.attack import FILES
from bench.stack import START_TIMEOUT_S, Stack, is_ready, process
from cli.local.service import CHECKOUT, free_port, wait_until

CONFIGURATION = CHECKOUT / "deploy" / "nginx" / "payments.conf"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def find_nginx() -> str | None:
    """Return the path of nginx; None if it is not installed."""
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


@contextlib.contextmanager
def behind_nginx(stack: Stack, nginx: str) -> Iterator[Stack]:
    """Start nginx until the block ends, and return the installation as clients see it through nginx."""
    port = free_port()
    server = CONFIGURATION.read_text().replace("127.0.0.1:8009", stack.url.removeprefix("http://"))
    server = server.replace("listen 8080", f"listen 127.0.0.1:{port}")
    with TemporaryDirectory(prefix="payments-bench-") as name:
        folder = Path(name)
        paths = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in TEMPORARY)
        (folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors crit;"
            f" worker_rlimit_nofile {FILES}; events {{ worker_connections {FILES}; }}"
            f" http {{ access_log off; {paths} {server} }}"
        )
        command = [nginx, "-p", str(folder), "-c", "nginx.conf", "-e", f"{folder}/errors"]
        with process(command, folder, folder / "nginx.log") as running:
            front = replace(stack, url=f"http://127.0.0.1:{port}", processes={**stack.processes, "nginx": running})
            wait_until(lambda: is_ready(front.url), timeout_s=START_TIMEOUT_S, what="nginx answers")
            yield front
