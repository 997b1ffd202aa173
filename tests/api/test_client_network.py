"""Which network an address is of, in every way that servers and proxies write one."""

import pytest

from payments_app.api.client_network import UNREADABLE, network_of

SPELLINGS = {
    "203.0.113.7": ["203.0.113.7", "203.0.113.7:51234", '"203.0.113.7"', " 203.0.113.7 ", "203.0.113.7:"],
    "192.0.2.1": ["::ffff:192.0.2.1", "[::ffff:192.0.2.1]:443", "::FFFF:C000:201", "0:0:0:0:0:ffff:c000:0201"],
    "2001:db8::/64": [
        "2001:db8::1",
        "2001:DB8:0:0:ffff::",
        "2001:0db8:0000:0000:0000:0000:0000:0001",
        "[2001:db8::1]",
        "[2001:db8::1]:443",
        '"[2001:db8::1]:51234"',
        "2001:db8::192.0.2.1",
    ],
    "fe80::/64": ["fe80::1%eth0", "[fe80::1%eth0]:443", "fe80::2%25eth0", "fe80::3%"],
    "::/64": ["::1", "::"],
    UNREADABLE: [
        "",
        "unknown",
        "_hidden",
        "unix:",
        ":51234",
        "203.0.113",
        "203.0.113.256",
        "0x7f.0.0.1",
        "203.0.113.7, 192.0.2.1",
        "2001:db8::1::2",
        "2001:db8:1:2:3:4:5:6:443",
        "[]:443",
        "%eth0",
        "\u0663.0.0.1",
        "2001:db8::1\x00",
        100 * ":",
    ],
}


@pytest.mark.parametrize(
    ("network", "written"), [(network, written) for network, all_ in SPELLINGS.items() for written in all_]
)
def test_an_address_is_of_a_network_however_it_is_written(network: str, written: str) -> None:
    assert network_of(written) == network
