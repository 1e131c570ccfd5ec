"""Where validation may reach: public addresses, and networks that an operator stated.

A client chooses the name that is connected to, so that without a bound it could have this host probe others
(server-side request forgery). A name is resolved once, each address judged, and the connection made to the
address that was judged: a name that changes in between changes nothing (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from fltrust.coordinator.acme_settings import Network
from fltrust.protocols.acme.problems import AcmeProblem, ProblemType

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_ADDRESSES = 16
_THREADS = 4
_UNICAST = ipaddress.ip_network("2000::/3")
"""Of IPv6, what is global unicast by its prefix; everything else is special, or will be."""
_NEVER: Final = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16")))
"""Special addresses, and those that carry another inside, which a translator on the way would connect to."""


def is_permitted(address: Address, networks: Sequence[Network]) -> bool:
    """Whether validation may connect to `address`: a public unicast one, or one in `networks`.

    An IPv4 address in an IPv6 one (``::ffff:10.0.0.1``) is judged as what it is.
    """
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if any(address in network for network in networks):
        return True
    if address.version == 6 and address not in _UNICAST:
        return False
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved or address.is_unspecified)
        and not (address.is_private or address.is_loopback or address.is_link_local)
        and not any(address in network for network in _NEVER)
    )


class Resolver:
    """Asks the system's resolver, on threads of its own: a name server that hangs blocks nobody else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="fltrust-acme-dns")

    async def addresses(self, name: str) -> list[Address]:
        """Every address of a name, in the resolver's order; ``dns`` if there is none."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, _look_up, name)
        except OSError:
            raise AcmeProblem(ProblemType.DNS, f"no address was found for {name}") from None
        addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in dict.fromkeys(found)]
        return addresses[:MAX_ADDRESSES]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(name: str) -> list[str]:
    # A dot at the end: what this host would look for in a search domain of its own is another name.
    found = socket.getaddrinfo(f"{name}." if "." in name else name, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def permitted_addresses(name: str, resolver: Resolver, networks: Sequence[Network]) -> list[Address]:
    """The addresses of `name` that may be connected to; ``unauthorized`` if it has none of those."""
    permitted = [one for one in await resolver.addresses(name) if is_permitted(one, networks)]
    if not permitted:
        raise AcmeProblem(
            ProblemType.UNAUTHORIZED,
            f"{name} leads to no address that this coordinator may validate; an operator can state its "
            "network under [acme]",
        )
    return permitted
