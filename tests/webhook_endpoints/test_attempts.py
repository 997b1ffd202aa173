"""One attempt over real HTTP: whatever the receiver does, it ends in time, and goes to no other address."""

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from payments_app.webhook_endpoints import attempt
from payments_app.webhook_endpoints.attempt import Outcome, Rules
from payments_app.webhook_endpoints.models import DeliveryError
from payments_app.webhook_endpoints.targets import UnusableUrl, is_public, require_usable
from tests.support.nginx import make_certificate
from tests.support.receiver import FLOOD_BYTES, Receiver, receiving

ANYWHERE, PUBLIC = Rules(https_only=False, allow_private=True), Rules(https_only=False, allow_private=False)

# Seconds; an attempt of a receiver that hangs takes so long.
SECONDS = 1.0


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def post(url: str, rules: Rules = ANYWHERE) -> Outcome:
    return attempt.post(url, b'{"a":1}', {"webhook-id": "evt_1_1"}, rules, seconds=SECONDS)


@pytest.mark.parametrize(
    ("path", "error", "status"),
    [
        ("/a/ok", None, 200),
        ("/a/204", None, 204),
        ("/a/500", DeliveryError.REFUSED, 500),
        ("/a/404", DeliveryError.REFUSED, 404),
        ("/a/410", DeliveryError.GONE, 410),
        ("/a/redirect", DeliveryError.REDIRECTED, 302),
        ("/a/hang", DeliveryError.TIMED_OUT, None),
        ("/a/drip", DeliveryError.TIMED_OUT, None),
        ("/a/drip-body", None, 200),  # the status has come
        ("/a/hang-up", DeliveryError.NO_CONNECTION, None),
        ("/a/no-http", DeliveryError.NOT_HTTP, None),
        ("/a/flood", None, 200),
    ],
)
def test_each_answer_has_its_meaning(
    receiver: Receiver, path: str, error: DeliveryError | None, status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert post(receiver.url(path)) == Outcome(error, status)

    (received,) = receiver.at(path)
    assert (received.body, received.headers["content-type"]) == (b'{"a":1}', "application/json")
    assert received.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert receiver.at("/elsewhere/ok") == []
    # What the kernels of both sides hold, and no more: the answer is not read to its end.
    assert receiver.bytes_sent < FLOOD_BYTES / 4


def test_a_path_is_sent_as_it_was_written(receiver: Receiver) -> None:
    for path in ("/ä ö?q=ü&r=%20".replace(" ", "%20"), "?only=query", ""):
        post(receiver.url(path))
    assert [each.path for each in receiver.received[-3:]] == ["/%C3%A4%20%C3%B6?q=%C3%BC&r=%20", "/?only=query", "/"]


def test_nobody_there_is_no_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert post(f"http://127.0.0.1:{unused.getsockname()[1]}/") == Outcome(DeliveryError.NO_CONNECTION)


class Resolver:
    """In place of the system's: the addresses of names, of which one lookup after the other takes the next."""

    def __init__(self, *addresses: str) -> None:
        self.addresses, self.lookups = [*addresses], 0

    def getaddrinfo(self, host: Any, port: int, **_: Any) -> list[Any]:
        address = self.addresses[min(self.lookups, len(self.addresses) - 1)]
        self.lookups += 1
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]


def test_the_address_that_was_judged_is_the_one_that_is_called(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is looked up first, and private afterwards, leads to the public address."""
    rebinding = Resolver("127.0.0.1", "127.0.0.2")
    monkeypatch.setattr(socket, "getaddrinfo", rebinding.getaddrinfo)
    monkeypatch.setattr(attempt, "is_public", lambda address: address == "127.0.0.1")
    outcome = post(f"http://booking.example.org:{receiver.port}/rebinding/ok", PUBLIC)

    assert (outcome, rebinding.lookups) == (Outcome(None, 200), 1)
    assert receiver.at("/rebinding/ok")[0].headers["host"] == f"booking.example.org:{receiver.port}"
    assert post(f"http://booking.example.org:{receiver.port}/rebinding/ok", PUBLIC).error == "address_not_public"
    assert len(receiver.at("/rebinding/ok")) == 1


def test_a_name_that_is_not_found_in_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, released = threading.Event(), threading.Event()

    def never(*_: Any, **__: Any) -> list[Any]:
        asked.set()
        released.wait()
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", never)
    assert post("http://slow.example.org/").error is DeliveryError.HOST_NOT_FOUND
    assert asked.is_set()
    released.set()


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "localhost"),  # noqa: S104
        *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[fd00::1]"),
        *("10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "192.0.0.192", "224.0.0.1"),
    ],
)
def test_no_spelling_of_a_private_address_is_called(receiver: Receiver, host: str) -> None:
    before = len(receiver.received)
    assert post(f"http://{host}:{receiver.port}/private/ok", PUBLIC) == Outcome(DeliveryError.ADDRESS_NOT_PUBLIC)
    assert len(receiver.received) == before


def test_addresses_are_public_or_not() -> None:
    not_public = [
        *("192.0.0.192", "192.0.0.170", "192.88.99.1", "168.63.129.16", "240.0.0.1", "255.255.255.255", "198.18.0.1"),
        *("203.0.113.1", "239.1.1.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "64:ff9b:1::1", "2002:808:808::1"),
        *("2001::1", "2001:db8::1", "3fff::1", "ff02::1", "fec0::1", "fe80::1%eth0", "100::1", "4000::1"),
    ]
    assert [address for address in not_public if is_public(address)] == []
    assert all(map(is_public, ("8.8.8.8", "1.1.1.1", "192.0.1.1", "2606:4700::1111", "2a00:1450:4001::1")))


@pytest.mark.parametrize(
    "url", ["https://u:p@example.org/", "https://example.org:99999/", f"https://{'a' * 70}.org/", "http://example.org/"]
)
def test_such_a_url_is_refused_before_anybody_is_called(url: str) -> None:
    with pytest.raises(UnusableUrl):
        require_usable(url, https_only=True, allow_private=True)
    error = DeliveryError.NOT_HTTPS if url.startswith("http:") else DeliveryError.ADDRESS_NOT_PUBLIC
    assert post(url, Rules(https_only=True, allow_private=True)).error is error


def test_the_certificate_is_verified_for_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is what TLS asks for and verifies, though an address was connected to."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    asked_for: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    monkeypatch.setattr(socket, "getaddrinfo", Resolver("127.0.0.1").getaddrinfo)
    with receiving() as receiver:
        receiver.speak_tls(server)
        urls = [f"https://{name}:{receiver.port}/tls/ok" for name in ("payments.example.org", "other.example.org")]
        trusting = ssl.create_default_context(cafile=str(certificate))
        untrusted = post(urls[0])
        monkeypatch.setattr(attempt, "_tls", lambda: trusting)
        outcomes = [post(url) for url in urls]

        assert untrusted == Outcome(DeliveryError.TLS_FAILED)
        assert outcomes == [Outcome(None, 200), Outcome(DeliveryError.TLS_FAILED)]
        assert asked_for == ["payments.example.org", "payments.example.org", "other.example.org"]
        assert len(receiver.at("/tls/ok")) == 1
