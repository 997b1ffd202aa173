"""Which network a request comes from, as rate limits count it: whoever has one address there, has all of them."""

import ipaddress

from flask import request

# One customer of a provider has at least so many bits of IPv6 to choose addresses from (RFC 6177), so a limit by
# single addresses would be none.
IPV6_PREFIX_BITS = 64

# All addresses that cannot be read are counted as one: a proxy that is set up badly makes the limits strict, not void.
UNREADABLE = "unreadable"


def client_network() -> str:
    """The network of this request's client, as the server or the trusted proxies (``TRUSTED_PROXIES``) tell it."""
    return network_of(request.remote_addr or "")


def network_of(written: str) -> str:
    """The IPv4 address or the IPv6 network in an address as proxies write it.

    That may be with a port (``203.0.113.7:51234``, ``[2001:db8::1]:443``), quotes or a zone (``fe80::1%eth0``). An IPv4
    address that is written as IPv6 (``::ffff:203.0.113.7``) is that IPv4 address.
    """
    host = written.strip(' "')
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
