"""Where the services listen that the URLs of settings name."""

from urllib.parse import urlsplit

from sqlalchemy.engine import make_url

from shared.config.values import Service

DEFAULT_PORTS = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379}
POSTGRESQL_PORT = 5432
LOCALHOST = "localhost"


def service_of(url: str) -> Service:
    """Return the host and the port of a URL of http, https, redis or rediss that is valid."""
    parts = urlsplit(url)
    return Service(parts.hostname or LOCALHOST, parts.port or DEFAULT_PORTS[parts.scheme])


def database_services(database_url: str) -> tuple[Service, ...]:
    """Return every host and port of a database URL, those in its query included; none for a file and for sockets."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        return ()
    port = url.port or POSTGRESQL_PORT
    in_query = url.query.get("host", ())
    ports = url.query.get("port", ())
    hosts = [host for text in ((in_query,) if isinstance(in_query, str) else in_query) for host in text.split(",")]
    numbers = [int(number) for text in ((ports,) if isinstance(ports, str) else ports) for number in text.split(",")]
    found = [
        _host_and_port(host, numbers[index] if index < len(numbers) else (numbers or [port])[-1])
        for index, host in enumerate(hosts)
    ]
    if url.host or not hosts:
        found.append(Service((url.host or LOCALHOST).lower(), port))
    return tuple(service for service in found if not service.host.startswith("/"))


def _host_and_port(text: str, port: int) -> Service:
    """Return the service of `host` or `host:port`. A host that begins with a slash is the folder of a socket."""
    host, colon, own_port = text.rpartition(":")
    return Service(host.lower(), int(own_port)) if colon and own_port.isdecimal() else Service(text.lower(), port)
