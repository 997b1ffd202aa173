"""Where webhooks may be sent: to public addresses, so that an endpoint reaches nothing inside our own network.

A URL names a host, and only its address says where it leads. So the host is looked up once for each attempt, and the
connection goes to the very address that was judged: a name that changes its address in between changes nothing.
"""

import ipaddress
import socket
import threading
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, urlsplit

from payments_app.i18n.messages import N_

# What Python calls global, or may call so in one of its versions, and yet is no address of somebody else's server.
_NOT_PUBLIC_V4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "192.0.0.0/24",  # of protocols: NAT64 discovery, DS-Lite
            "192.88.99.0/24",  # relays of 6to4
            "168.63.129.16/32",  # the host of a machine at Azure
        ),
    )
)
# Only these are given to servers; others lead to IPv4 addresses (mapped, NAT64), or nowhere.
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # of protocols, Teredo among them, which leads to an IPv4 address
            "2001:db8::/32",  # of documents
            "2002::/16",  # 6to4, which leads to an IPv4 address
            "3fff::/20",  # of documents
        ),
    )
)


class UnusableUrl(ValueError):
    """A URL to which no webhook may be sent; ``text`` says why."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class HostNotFound(Exception):
    """The host has no address, or was not found in time."""


def is_public(address: str) -> bool:
    """Whether an address, in the spelling of the resolver, may be anybody's server on the internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if not ip.is_global or ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _NOT_PUBLIC_V4)
    return ip in _UNICAST_V6 and not any(ip in network for network in _NOT_PUBLIC_V6)


def require_usable(url: str, *, https_only: bool, allow_private: bool) -> SplitResult:
    """The parts of a URL, whose host is not looked up.

    Raises:
        UnusableUrl: it names a user or no proper host or port; it is not https; or its host is a private address.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        is_named = bool(host) and bool((host or "").encode("idna"))
    except ValueError:  # UnicodeError too
        is_named, host = False, None
    if not is_named or host is None or "@" in parts.netloc:
        raise UnusableUrl(N_("Must name a host, and no user."))
    if https_only and parts.scheme != "https":
        raise UnusableUrl(N_("Must be an https URL."))
    try:
        is_private = not is_public(host)
    except ValueError:  # a name
        is_private = False
    if is_private and not allow_private:
        raise UnusableUrl(N_("Must be a public address."))
    return parts


def find_addresses(host: str, port: int, *, seconds: float) -> list[tuple[Any, ...]]:
    """The host's addresses as ``getaddrinfo`` gives them, in the order in which to try them.

    Raises:
        HostNotFound: it has none, or none was found in time.
    """
    found: list[tuple[Any, ...]] = []

    def look_up() -> None:
        with suppress(OSError, UnicodeError):  # nothing is found, which is what the caller asks
            found.extend(socket.getaddrinfo(host.encode("idna"), port, type=socket.SOCK_STREAM))

    # The resolver knows no time limit of ours: it is left behind, and ends by its own.
    thread = threading.Thread(target=look_up, name="webhook-lookup", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive() or not found:
        raise HostNotFound
    return found
