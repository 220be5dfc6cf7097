"""The guard on outgoing deliveries: every connection is judged by the address it is about to use.

Checking a URL or a name beforehand would not do: a name may lead elsewhere by the time it is used (DNS rebinding).
"""

import socket
from collections.abc import Callable
from ipaddress import ip_address

from aiohappyeyeballs import AddrInfoType
from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver

from shared.addresses import AddressPolicy


class AddressRefused(OSError):
    """The policy forbids the address. The text does not name it: it would tell a stranger where our names lead."""

    def __init__(self) -> None:
        super().__init__("the URL leads to an address that deliveries may not reach")


def guarded_connector(policy: AddressPolicy, *, resolver: AbstractResolver | None = None) -> TCPConnector:
    """A connector of which every new connection, also to a literal address, has passed `policy`.

    It sets no limit of its own: whoever uses it counts its requests.
    """
    return TCPConnector(limit=0, resolver=resolver, socket_factory=guarded_socket(policy))


def guarded_socket(policy: AddressPolicy) -> Callable[[AddrInfoType], socket.socket]:
    """A factory for the socket of one attempt to connect; raises AddressRefused instead where `policy` says no."""

    def open_socket(addr_info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, (host, port, *_) = addr_info
        if not policy.permits(ip_address(host), port):
            raise AddressRefused
        return socket.socket(family=family, type=kind, proto=protocol)

    return open_socket
