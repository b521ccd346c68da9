"""Names and addresses of machines in requests: which are ours, and which are one client."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class OwnNames:
    """How a server may be called by those who ask it.

    A page whose name is rebound to this machine sends that name as `Host`; nothing else tells.

    Attributes:
        names: in lower case, beside those of loopback.
        any_address: whether an IP address is enough, as when all interfaces listen; a name
            that is rebound is none.
    """

    names: frozenset[str] = frozenset()
    any_address: bool = False

    def include(self, host: str) -> bool:
        """Whether a host, without port, is this server."""
        known = host in LOOPBACK_NAMES | self.names
        return known or (self.any_address and is_address(host))


def host_of(given: Iterable[str]) -> str | None:
    """The name in the one `Host` header, without the port; None if there is no such one."""
    hosts = list(given)
    if len(hosts) != 1:
        return None
    try:
        return urlsplit(f"//{hosts[0]}").hostname
    except ValueError:
        return None


def is_address(host: str) -> bool:
    """Whether a host is an IP address, and no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or a /64 network of IPv6."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return parsed.packed[:8].hex()
