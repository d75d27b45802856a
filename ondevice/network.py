"""Which hosts are near: on this machine or its own network, where no proxy is to be asked."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2

#: Ends of names that mean something in a network of one's own only.
_NEAR = (".localhost", ".local", ".internal", ".lan", ".home", ".home.arpa")


def is_near(host: str) -> bool:
    """Whether ``host``, a name or an address, is this machine or one of its own network."""
    try:
        address = ip_address(host)
    except ValueError:
        name = host.lower().rstrip(".")
        return "." not in name or name.endswith(_NEAR)
    return address.is_private or address.is_loopback or address.is_link_local


def mounts(host: str) -> dict[str, httpx2.BaseTransport | None]:
    """For a client of httpx2 that talks to ``host``: past the environment's proxies if it is near.

    What is sent to this machine is nobody else's affair.
    """
    return dict.fromkeys(("http://", "https://", "all://")) if is_near(host) else {}
