"""A real nginx in front of the API, in the configurations that people usually write.

Every location sends the id that nginx gives a request as its correlation id. Every line of the access log has that id,
the API's status and the correlation id of the API's answer: which answer belongs to which request can be seen there.
"""

import os
import re
import shutil
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Self

import orjson
import pytest

from tests.support.processes import die_with_parent, forked
from tests.support.servers import free_port, wait_until

START_S = 20.0
STOP_S = 10.0
# What nginx waits for a head, and for more of a body, in seconds.
HEADER_S, BODY_S = 2, 4

_DOCUMENTED = (Path(__file__).resolve().parents[2] / "deploy" / "nginx" / "payments.conf").read_text()
_LOCATION = re.findall(r"location / \{.*?\n    \}", _DOCUMENTED, re.DOTALL)[0]
_KEPT_ALIVE = 'proxy_http_version 1.1; proxy_set_header Connection "";'
# By its name: where requests go, and how.
CONFIGURATIONS = {
    "documented": _LOCATION.replace("http://payments;", "http://api; %s"),
    "plain": "location / { proxy_pass http://closing; %s }",
    "keepalive": f"location / {{ proxy_pass http://api; {_KEPT_ALIVE} %s }}",
    "websocket": """location / {
        proxy_pass http://api; proxy_http_version 1.1; %s
        proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; }""",
    "gateway": f"""
        gzip on; gzip_types application/json application/problem+json; gzip_proxied any; gzip_min_length 1;
        underscores_in_headers on; ignore_invalid_headers off; large_client_header_buffers 16 64k;
        location /api/ {{ proxy_pass http://api; {_KEPT_ALIVE} proxy_request_buffering off; %s }}""",
}
_FORMAT = (
    '{"id": "$request_id", "client_port": "$remote_port", "request": "$request", "status": "$status",'
    ' "upstream_status": "$upstream_status", "upstream_id": "$upstream_http_x_correlation_id"}'
)
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A line of the access log: a request, and what nginx answered to it."""

    id: str
    client_port: int
    request: str
    status: int
    # Of the API's answer; None if nginx has got none.
    upstream_status: int | None
    upstream_id: str


class Nginx:
    """One nginx process with a port for each configuration, in front of the API at `api_port`.

    It waits `keep_alive_s` seconds for another request on a connection.
    """

    def __init__(self, folder: Path, api_port: int, *, keep_alive_s: int = 75) -> None:
        self.ports = {name: free_port() for name in CONFIGURATIONS}
        self._folder = folder
        self._api_port = api_port
        self._keep_alive_s = keep_alive_s
        self._process: ForkServerProcess | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if binary is None:
            _miss(
                "nginx is not installed here (Debian and Ubuntu: apt install nginx-light): nothing is tried behind it."
            )
        self._folder.mkdir(parents=True)
        (self._folder / "nginx.conf").write_text(self._configuration())
        self._process = forked(_run, binary, str(self._folder))
        wait_until(self._is_ready, timeout_s=START_S, what=f"nginx starts: {self.errors}")

    def stop(self) -> None:
        """Stop it."""
        if self._process is not None:
            self._process.terminate()
            self._process.join(STOP_S)
            self._process.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    @property
    def errors(self) -> str:
        log = self._folder / "error.log"
        return log.read_text() if log.exists() else ""

    def exchanges(self) -> list[Exchange]:
        """All requests so far."""
        # A request line may have any bytes.
        lines = (self._folder / "access.log").read_text("latin-1").split("\n")[:-1]
        return [_exchange(orjson.loads(line)) for line in lines]

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.exitcode is None, self.errors
        return (self._folder / "nginx.pid").exists()

    def _configuration(self) -> str:
        passed = "proxy_set_header X-Correlation-ID $request_id;"
        servers = "\n".join(
            f"server {{ listen 127.0.0.1:{self.ports[name]}; {text % passed} }}"
            for name, text in CONFIGURATIONS.items()
        )
        folders = " ".join(f"{name}_temp_path {self._folder}/{name};" for name in _TEMPORARY)
        return f"""
            daemon off; master_process off; pid {self._folder}/nginx.pid; error_log {self._folder}/error.log;
            events {{ worker_connections 2048; }}
            http {{
                log_format exchange escape=json '{_FORMAT}';
                access_log {self._folder}/access.log exchange;
                {folders}
                client_header_timeout {HEADER_S}s; client_body_timeout {BODY_S}s;
                keepalive_timeout {self._keep_alive_s}s;
                lingering_timeout 1s;
                upstream closing {{ server 127.0.0.1:{self._api_port}; }}
                upstream api {{ server 127.0.0.1:{self._api_port}; keepalive 4; }}
                {servers}
            }}"""


def _exchange(line: dict[str, str]) -> Exchange:
    upstream_status = line["upstream_status"]
    return Exchange(
        id=line["id"],
        client_port=int(line["client_port"]),
        request=line["request"],
        status=int(line["status"]),
        upstream_status=int(upstream_status) if upstream_status.isdigit() else None,
        upstream_id=line["upstream_id"],
    )


def _miss(sentence: str) -> None:
    """Fail where everything must be tried, and say loudly elsewhere that it is not."""
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)


def _run(binary: str, folder: str) -> None:
    """Become nginx."""
    die_with_parent()
    output = os.open(f"{folder}/output.log", os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.execv(binary, [binary, "-p", folder, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"])  # noqa: S606
