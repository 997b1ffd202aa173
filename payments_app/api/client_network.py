"""The network of a client, as rate limits count it: one client can use all addresses of its network."""

import ipaddress

from flask import request

# A provider gives each customer at least a /64 of IPv6 addresses (RFC 6177), so a limit per single address has no
# effect.
IPV6_PREFIX_BITS = 64

# All unreadable addresses are counted as one: a misconfigured proxy makes the limits stricter, and does not disable
# them.
UNREADABLE = "unreadable"


def client_network() -> str:
    """The network of the request's client, from the connection or from the trusted proxies (``TRUSTED_PROXIES``)."""
    return network_of(request.remote_addr or "")


def network_of(address_text: str) -> str:
    """The IPv4 address or the IPv6 network in an address as proxies write it.

    The address may have a port (``203.0.113.7:51234``, ``[2001:db8::1]:443``), quotes or a zone (``fe80::1%eth0``). An
    IPv4-mapped IPv6 address (``::ffff:203.0.113.7``) counts as the IPv4 address. ``unreadable`` if it is no address.
    """
    host = address_text.strip(' "')
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:  # an IPv6 address has at least two
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return UNREADABLE
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(address), IPV6_PREFIX_BITS), strict=False))
        address = address.ipv4_mapped
    return str(address)
