"""The SSRF guard of outgoing deliveries: it checks the address of every connection when the connection is opened.

Checking a URL or a name beforehand is not enough: the name may resolve to another address later (DNS rebinding).
"""

import socket
from collections.abc import Callable
from ipaddress import ip_address

from aiohappyeyeballs import AddrInfoType
from aiohttp.abc import AbstractResolver

from shared.upstream.connections import StrictConnector
from shared.webhooks.url_policy import AddressPolicy


class AddressRefused(OSError):
    """The policy forbids the address.

    The text does not name the address: clients read it, and would learn how our internal names resolve.
    """

    def __init__(self) -> None:
        super().__init__("the URL leads to an address that deliveries may not reach")


def guarded_connector(policy: AddressPolicy, *, resolver: AbstractResolver | None = None) -> StrictConnector:
    """Return a connector that checks every new connection against `policy`, also one to a literal address.

    The connector sets no limit of its own: the delivery pool bounds the requests.
    """
    return StrictConnector(limit=0, resolver=resolver, socket_factory=guarded_socket(policy))


def guarded_socket(policy: AddressPolicy) -> Callable[[AddrInfoType], socket.socket]:
    """Return a factory for the socket of one attempt to connect.

    The factory raises AddressRefused if `policy` forbids the address.
    """

    def open_socket(addr_info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, (host, port, *_) = addr_info
        if not policy.permits(ip_address(host), port):
            raise AddressRefused
        return socket.socket(family=family, type=kind, proto=protocol)

    return open_socket
