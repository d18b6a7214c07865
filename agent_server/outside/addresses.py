"""Where requests to outside servers may go.

A name is resolved here and the request goes to the address that was checked, so that no second look at the name can give
another one. Addresses that are not of the internet are refused: a name in a file, or one that its owner has moved, must
not lead to a database or to the metadata of a cloud. A server of one's own network says `private: true`. An address that
stands in the file itself, or `localhost`, is what its author meant.
"""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from agent_server.outside.servers import is_here

_NAT64 = ip_network("64:ff9b::/96")

Address = IPv4Address | IPv6Address


class AddressRefused(Exception):
    """A host that no request is sent to. Its text says why."""


async def find_address(host: str, port: int, *, private: bool) -> str:
    """The address of a host. Raises AddressRefused, and OSError where it has none."""
    try:
        literal: Address | None = ip_address(host)
    except ValueError:
        literal = None
    if literal is not None:
        check_address(literal, host, private=True)
        return host
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    for address in addresses:
        check_address(address, host, private=private or (is_here(host) and address.is_loopback))
    # The first kind that a machine without the other one can reach, too.
    addresses.sort(key=lambda address: address.version)
    return str(addresses[0])


def check_address(address: Address, host: str, *, private: bool) -> None:
    """Refuse an address that is not of the internet, unless it may be private. Raises AddressRefused."""
    real = _unwrap(address)
    if real.is_link_local or real.is_multicast or real.is_unspecified:
        raise AddressRefused(f"{host} is at {address}, where no server is")
    if not private and not real.is_global:
        raise AddressRefused(f"{host} is at {address}, which is not of the internet; `private: true` allows it")


def _unwrap(address: Address) -> Address:
    """The address that another one stands for."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address
