"""The images and the compose file, as far as they can be judged without building them."""

import ipaddress
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from api.main import DRAIN_S
from shared.config.security import SECRET_BYTES_MIN
from shared.config.settings import Settings, load_settings
from shared.database.migrations import MIGRATIONS
from tests.support.repository import PROJECT
from worker.main import DRAIN_MARGIN_S
from worker.slots import SHUTDOWN_FLUSH_S

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILES = ("Dockerfile.api", "Dockerfile.worker")
SERVERS = ("postgres", "redis")
OURS = ("migrate", "api", "worker")
# Beyond the longest payment or delivery: the margin of the grace, and the records after it.
STOP_MARGIN_S = DRAIN_MARGIN_S + SHUTDOWN_FLUSH_S
OF_THE_IMAGES = {"host", "port", "metrics_port"}


def with_defaults(text: str) -> str:
    """The text as compose reads it in an empty environment."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


COMPOSE: dict[str, Any] = yaml.safe_load(with_defaults((ROOT / "docker-compose.yml").read_text()))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def instructions(name: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile: its word and its arguments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def stages(name: str) -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for word, arguments in instructions(name):
        if word == "FROM":
            found.append([])
        found[-1].append((word, arguments))
    return found


def commands() -> list[list[str]]:
    """Every `payments ...` that an image or the compose file runs."""
    found = []
    for name in DOCKERFILES:
        for word, arguments in instructions(name):
            if word in ("CMD", "HEALTHCHECK") and "[" in arguments:
                found.append(json.loads(arguments[arguments.index("[") :]))
    for service in SERVICES.values():
        found += [service.get("command", []), service.get("healthcheck", {}).get("test", [])[1:]]
    return [command for command in found if command[:1] == ["payments"]]


def seconds(duration: str) -> float:
    assert duration.endswith("s")
    return float(duration.removesuffix("s"))


def test_the_services_are_the_whole_system() -> None:
    assert set(SERVICES) == {*SERVERS, *OURS}
    assert "version" not in COMPOSE


def test_no_process_starts_before_the_schema_is_there() -> None:
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["migrate"]["command"] == ["payments", "migrate"]
    for name in ("api", "worker"):
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_the_worker_can_be_scaled() -> None:
    assert not {"container_name", "ports", "hostname", "expose"} & SERVICES["worker"].keys()
    assert "container_name" not in SERVICES["api"]
    assert SERVICES["worker"]["environment"]["WORKER_CONCURRENCY"] == 100


def test_the_api_is_on_8009_of_this_machine_only() -> None:
    assert SERVICES["api"]["ports"] == ["127.0.0.1:8009:8009"]
    assert not any("ports" in SERVICES[name] for name in (*SERVERS, "migrate", "worker"))


@pytest.mark.parametrize("name", [*SERVERS, "api", "worker"])
def test_what_runs_is_watched_and_comes_back(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", ["api", "worker"])
def test_a_stop_leaves_time_to_drain(name: str) -> None:
    """Also as one process, which stops its API first (`payments up`, in docs/platform.md)."""
    gateway_s = float(SERVICES[name]["environment"]["PAYMENT_PROCESSING_DELAY_MAX"]) / 1000
    longest_s = max(gateway_s, Settings.model_fields["webhook_timeout"].default) + STOP_MARGIN_S
    assert seconds(SERVICES[name]["stop_grace_period"]) >= DRAIN_S + longest_s
    page = (ROOT / "docs" / "platform.md").read_text()
    stated = re.findall(r"stop_grace_period: (\S+)", page)
    assert stated
    assert set(stated) == {SERVICES[name]["stop_grace_period"]}


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting_and_together_they_are_accepted(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert {variable.lower() for variable in environment} <= Settings.model_fields.keys()
    # A process reads an empty variable as one that is not set.
    values = {variable.lower(): value for variable, value in environment.items() if value not in {None, ""}}
    settings = load_settings(host="0.0.0.0", **values)  # noqa: S104 - as in the image
    assert settings.database_url.startswith("postgresql+asyncpg://payments:")
    assert settings.redis_url == "redis://redis:6379/0"


@pytest.mark.parametrize("name", OURS)
def test_every_setting_can_be_given_to_the_compose_file(name: str) -> None:
    """The images set the ports that the health checks expect, and two settings are the servers of this file."""
    environment = SERVICES[name]["environment"]
    assert {variable.lower() for variable in environment} == Settings.model_fields.keys() - OF_THE_IMAGES
    text = (ROOT / "docker-compose.yml").read_text()
    fixed = {variable for variable in environment if f"{variable}: ${{{variable}:-" not in text.replace('"', "")}
    assert fixed == {"DATABASE_URL", "REDIS_URL"}


def test_the_api_is_limited_and_trusts_no_proxy_by_default() -> None:
    environment = SERVICES["api"]["environment"]
    assert (environment["RATE_LIMIT_USER"], environment["RATE_LIMIT_ADDRESS"]) == ("600/minute", "6000/minute")
    assert not environment["TRUSTED_PROXIES"]


def test_all_of_ours_share_their_secrets() -> None:
    for variable in ("DATABASE_URL", "JWT_SECRET_KEY", "DATA_KEY"):
        assert len({SERVICES[name]["environment"][variable] for name in OURS}) == 1


@pytest.mark.parametrize("variable", ["JWT_SECRET_KEY", "DATA_KEY"])
def test_a_development_secret_says_so_is_long_enough_and_can_be_replaced(variable: str) -> None:
    value = SERVICES["api"]["environment"][variable]
    assert value.startswith("DEVELOPMENT-VALUE")
    assert len(value.encode()) >= SECRET_BYTES_MIN
    assert f"{variable}: ${{{variable}:-{value}}}" in (ROOT / "docker-compose.yml").read_text()


def test_webhooks_reach_the_network_of_receivers_and_nothing_else_private() -> None:
    [inner], [outer] = (COMPOSE["networks"][name]["ipam"]["config"] for name in ("default", "receivers"))
    assert {SERVICES[name]["environment"]["WEBHOOK_ALLOWED_NETWORKS"] for name in OURS} == {outer["ip_range"]}
    opened = ipaddress.IPv4Network(outer["ip_range"])
    assert opened.is_private
    assert opened.subnet_of(ipaddress.IPv4Network(outer["subnet"]))
    # The gateway is the machine itself.
    assert ipaddress.ip_address(outer["gateway"]) not in opened
    assert not opened.overlaps(ipaddress.IPv4Network(inner["subnet"]))
    # Of ours only the worker is in it.
    attached = {name: service.get("networks", ["default"]) for name, service in SERVICES.items()}
    assert {name for name, networks in attached.items() if "receivers" in networks} == {"worker"}


def test_the_health_check_of_the_platform_finds_curl_in_the_api() -> None:
    installs = [
        arguments for word, arguments in stages("Dockerfile.api")[-1] if word == "RUN" and "apt-get" in arguments
    ]
    assert any("curl" in shlex.split(arguments) for arguments in installs)
    assert SERVICES["api"]["healthcheck"]["test"] == ["CMD", "curl", "-fsS", "http://127.0.0.1:8009/health"]


def test_every_command_exists_with_its_options() -> None:
    from cli.main import app  # noqa: PLC0415 - the other tests hold without it

    known: dict[str, Any] = getattr(typer.main.get_command(app), "commands", {})
    assert {command[1] for command in commands()} == {"api", "worker", "migrate", "health"}
    for _payments, name, *options in commands():
        assert name in known
        accepted = {option for parameter in known[name].params for option in parameter.opts}
        assert set(options) <= accepted


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_built_in_two_stages_from_locked_packages(name: str) -> None:
    build, final = stages(name)
    assert [arguments for word, arguments in (build[0], final[0]) if word == "FROM"] == [
        "python:3.13-slim AS build",
        "python:3.13-slim",
    ]
    installs = [
        part.strip()
        for word, arguments in build
        if word == "RUN"
        for part in arguments.split("&&")
        if "pip install" in part
    ]
    assert installs == [
        "pip install --require-hashes --only-binary=:all: -r requirements.txt",
        "pip install --no-deps --no-build-isolation .",
    ]
    assert not any(
        re.search(r"pip|gcc|build-essential|-dev\b", arguments) for word, arguments in final if word == "RUN"
    )


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_nobody_in_particular(name: str) -> None:
    final = stages(name)[-1]
    words = [word for word, _ in final]
    assert words.count("USER") == 1
    # A number, so that runAsNonRoot can see it.
    assert int(dict(final)["USER"]) > 0
    assert "RUN" not in words[words.index("USER") :]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_knows_its_command_and_its_health(name: str) -> None:
    final = dict(stages(name)[-1])
    assert json.loads(final["CMD"]) == ["payments", name.removeprefix("Dockerfile.")]
    assert "health" in final["HEALTHCHECK"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_says_what_it_is(name: str) -> None:
    """The annotations of the OCI image specification; what only the build knows is an argument of it."""
    final = stages(name)[-1]
    labels = dict(part.split("=", 1) for word, words in final if word == "LABEL" for part in shlex.split(words))
    prefix = "org.opencontainers.image."
    assert labels.keys() == {
        prefix + key
        for key in ("title", "description", "licenses", "version", "revision", "source", "created")
    }  # fmt: skip
    assert labels[f"{prefix}licenses"] == PROJECT["project"]["license"] == "MIT"
    arguments = {words.split("=")[0] for word, words in final if word == "ARG"}
    assert {value.removeprefix("$") for value in labels.values() if value.startswith("$")} == arguments
    command = (ROOT / "docs" / "releasing.md").read_text()
    assert all(f"--build-arg {argument}=" in command for argument in arguments)


@pytest.mark.parametrize(("name", "port"), [("Dockerfile.api", "8009"), ("Dockerfile.worker", "9100")])
def test_an_image_can_be_reached_from_the_containers_network(name: str, port: str) -> None:
    final = dict(stages(name)[-1])
    assert "HOST=0.0.0.0" in shlex.split(final["ENV"])
    assert final["EXPOSE"] == port


def test_the_worker_answers_its_health_check() -> None:
    assert "METRICS_PORT=9100" in shlex.split(dict(stages("Dockerfile.worker")[-1])["ENV"])
    assert "METRICS_PORT" not in SERVICES["worker"]["environment"]


def test_both_images_are_built_alike() -> None:
    assert stages("Dockerfile.api")[0] == stages("Dockerfile.worker")[0]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_exists_and_is_not_ignored(name: str) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {part for word, arguments in stages(name)[0] if word == "COPY" for part in arguments.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / part).exists() for part in copied)


def test_an_image_holds_every_package_and_the_migrations() -> None:
    copied = {
        part for word, arguments in stages("Dockerfile.api")[0] if word == "COPY" for part in arguments.split()[:-1]
    }
    assert {"payment_service", "api", "worker", "shared", "cli"} <= copied
    assert MIGRATIONS.relative_to(ROOT).as_posix() in copied


def test_what_the_environment_decides_is_set_where_everybody_sees_it() -> None:
    for name in OURS:
        environment = SERVICES[name]["environment"]
        assert (environment["ENVIRONMENT"], environment["SIMULATION"]) == ("production", "on")
