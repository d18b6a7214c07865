"""Addresses of the internet, and none of the network that the server is in.

Where an address is anybody's, the one that a name stands for is looked at when the connection is made: what was looked at
before may be another by then.
"""

import socket
from ipaddress import IPv6Address, ip_address, ip_network

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

# `is_global` is true of these, in which an address of version 4 stands, and that may be any.
_CARRIERS = [ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
        if any(found in carrier for carrier in _CARRIERS):
            return False
    return found.is_global and not found.is_multicast


class PublicResolver(AbstractResolver):
    """Names to addresses. One that leads to an address that is not public raises OSError with `refusal`."""

    def __init__(self, refusal: str) -> None:
        self._all, self._refusal = aiohttp.DefaultResolver(), refusal

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._all.resolve(host, port, family)
        if not all(is_public(result["host"]) for result in found):
            raise OSError(self._refusal)
        return found

    async def close(self) -> None:
        await self._all.close()
