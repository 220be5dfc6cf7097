"""Where the services listen that the URLs of settings name."""

from urllib.parse import urlsplit

from shared.config.database_url import DEFAULT_PORT, PostgresTarget
from shared.config.values import Service

DEFAULT_PORTS = {"http": 80, "https": 443}
LOCALHOST = "localhost"


def service_of(url: str) -> Service:
    """Return the host and the port of a URL of http or https that is valid."""
    parts = urlsplit(url)
    return Service(parts.hostname or LOCALHOST, parts.port or DEFAULT_PORTS[parts.scheme])


def database_services(target: PostgresTarget | None) -> tuple[Service, ...]:
    """Return where the servers of a target listen: none for a file, which has no target, and for sockets."""
    if target is None:
        return ()
    ports = target.ports or (DEFAULT_PORT,)
    # Without a host, a service file or the environment names it.
    hosts = target.hosts or (LOCALHOST,) * len(ports)
    return tuple(Service(host.lower(), port) for host, port in zip(hosts, ports, strict=True) if host[0] != "/")
