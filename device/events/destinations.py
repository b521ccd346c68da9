"""Where webhooks may go: public addresses, and private ones that the operator has named.

A name is resolved, its addresses are judged, and the connection is made to a judged address and
not to the name: whoever changes what the name means in between gains nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from triparty.common.errors import ForbiddenError, UnreachableError

Address = IPv4Address | IPv6Address
_TRANSLATED: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))
"""IPv6 networks whose last 32 bits are an IPv4 address."""


def choose_address(host: str, port: int, *, allow: Sequence[str]) -> str:
    """An address of a host that may be connected to.

    Args:
        host: name or address.
        port: of it.
        allow: networks that may be connected to though they are not public.

    Raises:
        ForbiddenError: it has no address that may be connected to.
        UnreachableError: it has no address at all.
    """
    found = _resolve(host, port)
    good = [address for address in found if may_connect(address, allow)]
    if not good:
        raise ForbiddenError(
            f"{host} is at {found[0]}, which is not public: if that is meant, "
            f'allow = ["{found[0]}"]'
        )
    return good[0]


def may_connect(address: str, allow: Sequence[str]) -> bool:
    """Whether an address is public, or in an allowed network.

    Loopback, link-local (where clouds answer with credentials), private, shared, multicast and
    reserved addresses are not public; nor are IPv6 addresses that lead to such IPv4 ones.
    """
    plain = _unwrapped(ip_address(address.partition("%")[0]))
    return (plain.is_global and not plain.is_multicast) or is_allowed(address, allow)


def is_allowed(address: str, allow: Sequence[str]) -> bool:
    """Whether an address is in a network that the operator has named."""
    plain = _unwrapped(ip_address(address.partition("%")[0]))
    return any(plain in ip_network(network) for network in allow)


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    is_plain = int(address) <= 1  # :: and ::1
    if not is_plain and any(address in network for network in _TRANSLATED):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _resolve(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UnreachableError(f"{host} has no address") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
