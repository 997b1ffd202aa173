"""What nginx does for the service: TLS, who is asking, how much, and its own errors in the service's manner."""

import json
import re
import select
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from payments_app.api.problem_catalog import CATALOG
from tests.support.full_stack import Stack
from tests.support.people import PASSWORD
from tests.support.waiting import PATIENCE_SECONDS, wait_until


def assert_problem(answer: requests.Response, status: int) -> None:
    """nginx's own errors look like the service's."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["message"] == body["detail"]
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert body["title"] == CATALOG[body["type"].removeprefix("/problems/")].title
    assert answer.headers["Cache-Control"] == "no-store"
    assert ("Retry-After" in answer.headers) == body["retryable"]


def test_a_payment_goes_all_the_way_in_production(stack: Stack, client: requests.Session) -> None:
    consultation_id = stack.unpaid()
    login = {"email": stack.people.patient.email, "password": PASSWORD}
    token = client.post(f"{stack.nginx.url}/api/login", json=login, timeout=PATIENCE_SECONDS).json()["token"]
    body: dict[str, Any] = {"consultation_id": consultation_id, "amount": 5000, "payment_method": "stripe"}

    answers = [
        client.post(
            f"{stack.nginx.url}/api/v1/payments",
            json=body,
            headers={"Authorization": f"Bearer {token}", "Idempotency-Key": f"way-{consultation_id}"},
            timeout=PATIENCE_SECONDS,
        )
        for _ in range(2)
    ]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert stack.rows.count("payments", "consultation_id = :id", id=consultation_id) == 1


def test_headers_are_said_once_and_an_etag_stays_strong(stack: Stack, client: requests.Session) -> None:
    paid = stack.pay(client, consultation_id := stack.unpaid(), f"etag-{consultation_id}")
    answer = stack.get(client, paid.headers["Location"])

    assert answer.headers["ETag"] == '"0"'
    assert "Content-Encoding" not in answer.headers  # although the client would take gzip
    assert "gzip" in str(answer.request.headers["Accept-Encoding"])
    # Where nginx and the service both said something, there would be a comma in between.
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "," not in answer.headers["X-Request-ID"] + answer.headers["X-Frame-Options"]
    assert answer.headers["Server"] == "nginx"  # which one is nobody's business


def test_old_tls_is_refused(stack: Stack) -> None:
    address = f"127.0.0.1:{stack.nginx.https_port}"
    offered = ["openssl", "s_client", "-connect", address, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]
    result = subprocess.run(offered, input="", capture_output=True, text=True, check=False)

    assert result.returncode != 0
    assert "alert protocol version" in result.stderr


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_new_tls_is_spoken(stack: Stack, version: ssl.TLSVersion) -> None:
    context = stack.nginx.tls()
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", stack.nginx.https_port)) as plain,
        context.wrap_socket(plain, server_hostname="payments.example.org") as spoken,
    ):
        assert spoken.version() == version.name.replace("_", ".")


def test_plain_http_is_sent_to_https_at_our_own_name(stack: Stack) -> None:
    answer = requests.get(
        f"http://127.0.0.1:{stack.nginx.http_port}/api/v1/me?a=b",
        headers={"Host": "evil.example"},
        allow_redirects=False,
        timeout=PATIENCE_SECONDS,
    )

    assert answer.status_code == 301
    assert answer.headers["Location"] == "https://payments.example.org/api/v1/me?a=b"


def test_failed_logins_from_many_forged_addresses_count_as_one(stack: Stack) -> None:
    login = {"email": stack.people.other.email, "password": "wrong"}

    def fail(client: requests.Session, forged: str) -> int:
        headers = {"X-Forwarded-For": forged, "Forwarded": f"for={forged}", "X-Real-IP": forged}
        url = f"{stack.nginx.url}/api/login"
        return client.post(url, json=login, headers=headers, timeout=PATIENCE_SECONDS).status_code

    with stack.nginx.client("127.0.0.31") as one, stack.nginx.client("127.0.0.32") as another:
        assert [fail(one, f"203.0.113.{number}") for number in range(6)] == [401] * 5 + [429]
        # And somebody who really is elsewhere is somebody else.
        assert fail(another, "127.0.0.31") == 401


@pytest.mark.parametrize(("given", "is_taken"), [("abc-123", True), ('x" onload="', False), ("x" * 65, False)])
def test_a_request_id_is_the_same_in_answer_body_and_log(
    stack: Stack, client: requests.Session, given: str, is_taken: bool
) -> None:
    answer = client.get(f"{stack.nginx.url}/api/v1/me", headers={"X-Request-ID": given}, timeout=PATIENCE_SECONDS)

    assert answer.status_code == 401
    request_id = answer.headers["X-Request-ID"]
    assert (request_id == given) == is_taken
    assert answer.json()["request_id"] == request_id
    line = stack.nginx.logged(request_id)
    assert (line["path"], line["status"]) == ("/api/v1/me", "401")


@pytest.mark.parametrize("path", ["/api/v1/payments", "/report.html"])
def test_an_oversize_body_is_refused_as_a_problem(stack: Stack, client: requests.Session, path: str) -> None:
    just_too_large = b" " * (64 * 1024 + 1)
    answer = client.post(f"{stack.nginx.url}{path}", data=just_too_large, timeout=PATIENCE_SECONDS)

    assert_problem(answer, 413)
    line = stack.nginx.logged(answer.headers["X-Request-ID"])
    assert (line["path"], line["status"], line["method"]) == (path, "413", "POST")


def test_a_body_of_64_kib_reaches_the_service(stack: Stack, client: requests.Session) -> None:
    answer = client.post(f"{stack.nginx.url}/api/v1/payments", data=b" " * 64 * 1024, timeout=PATIENCE_SECONDS)

    assert answer.json()["instance"] == "/api/v1/payments"  # which nginx does not say


@pytest.mark.parametrize("gateway", ["stripe", "paymongo"])
def test_a_webhook_has_a_limit_of_its_own(stack: Stack, client: requests.Session, gateway: str) -> None:
    url = f"{stack.nginx.url}/api/v1/webhooks/{gateway}"
    largest = client.post(url, data=b" " * 512 * 1024, timeout=PATIENCE_SECONDS)
    too_large = client.post(url, data=b" " * (512 * 1024 + 1), timeout=PATIENCE_SECONDS)
    in_chunks = client.post(url, data=iter([b" " * 512 * 1024, b" "]), timeout=PATIENCE_SECONDS)

    assert (largest.status_code, largest.json()["instance"]) == (400, f"/api/v1/webhooks/{gateway}")
    assert_problem(too_large, 413)
    assert_problem(in_chunks, 413)


def test_slow_clients_keep_nobody_else_waiting(stack: Stack, client: requests.Session) -> None:
    """More of them than the service has threads, each in the middle of its body."""
    address = ("127.0.0.1", stack.nginx.https_port)
    head = b"POST /api/login HTTP/1.1\r\nHost: payments.example.org\r\nContent-Length: 1000\r\n\r\n{"
    context = stack.nginx.tls()
    slow = []
    for number in range(40):
        # Each from an address of its own, or nginx's limit for logins would send some away.
        plain = socket.create_connection(address, source_address=(f"127.0.2.{number + 1}", 0))
        slow.append(context.wrap_socket(plain, server_hostname="payments.example.org"))
        slow[-1].sendall(head)

    answers = [stack.get(client, "/api/v1/me").status_code for _ in range(5)]

    # And they were slow all the time: nobody has told any of them anything. (TLS 1.3 sends its tickets early.)
    for connection in slow:
        connection.setblocking(False)
        while select.select([connection], [], [], 0)[0]:
            with pytest.raises(ssl.SSLWantReadError):
                connection.recv(1)
        connection.close()
    assert answers == [200] * 5


@pytest.mark.parametrize(("path", "requests_at_once"), [("/api/login", 160), ("/api/v1/payments", 200)])
def test_a_flood_from_one_address_is_held_back_as_a_problem(stack: Stack, path: str, requests_at_once: int) -> None:
    with stack.nginx.client("127.0.0.41") as flood:
        answers = [flood.post(f"{stack.nginx.url}{path}", timeout=PATIENCE_SECONDS) for _ in range(requests_at_once)]
        held_back = [answer for answer in answers if answer.status_code == 429]
        # A clinic's people, who all come at the same minute, are no flood.
        assert 429 not in [answer.status_code for answer in answers[:100]]
        assert 0 < len(held_back) < requests_at_once
        assert_problem(held_back[0], 429)
        # Reading is not held back, and others are not.
        assert stack.get(flood, "/api/v1/payments").status_code == 200
    with stack.nginx.client("127.0.0.42") as another:
        assert another.post(f"{stack.nginx.url}{path}", timeout=PATIENCE_SECONDS).status_code != 429


def test_networks_are_counted_and_not_the_addresses_in_them(stack: Stack) -> None:
    """An IPv6 customer has 2**64 addresses, which may be written in many ways."""

    def post_from(address: str) -> int:
        headers = {"X-Test-Address": address}
        return client.post(f"{stack.nginx.url}/api/login", headers=headers, timeout=PATIENCE_SECONDS).status_code

    with stack.nginx.client(stack.nginx.TELLS_ITS_ADDRESS) as client:
        one_network = ["2001:db8::1", "2001:db8::1:2:3:4", "2001:db8:0:0:a0a:a0a:a0a:a0a", "2001:db8:0:0:1::"]
        answers = [post_from(one_network[number % 4]) for number in range(160)]
        assert 429 not in answers[:100]
        assert 429 in answers
        assert post_from("2001:db8:0:1::1") != 429
        # Of IPv4 each address is one.
        assert 429 in [post_from("203.0.113.10") for _ in range(160)]
        assert post_from("203.0.113.11") != 429


def test_an_ipv4_address_that_comes_as_ipv6_counts_as_ipv4(stack: Stack) -> None:
    """As they all do if nginx listens to both by one socket."""

    def post_from(address: str) -> int:
        headers = {"X-Test-Address": address}
        return client.post(f"{stack.nginx.url}/api/login", headers=headers, timeout=PATIENCE_SECONDS).status_code

    with stack.nginx.client(stack.nginx.TELLS_ITS_ADDRESS) as client:
        assert 429 in [post_from("::ffff:203.0.113.20") for _ in range(160)]
        assert post_from("203.0.113.20") == 429
        assert post_from("::ffff:203.0.113.21") != 429
        # The bytes of a network may be any, a line feed and zeros among them.
        assert 429 in [post_from("::ffff:10.0.10.0") for _ in range(160)]
        assert post_from("10.0.10.0") == 429


def test_one_client_with_many_slow_requests_leaves_connections_to_others(stack: Stack) -> None:
    head = b"POST /api/v1/me HTTP/1.1\r\nHost: payments.example.org\r\nContent-Length: 1000\r\n\r\n{"
    context = stack.nginx.tls()
    with ExitStack() as slow:
        connections = []
        for _ in range(130):
            plain = socket.create_connection(("127.0.0.1", stack.nginx.https_port), source_address=("127.0.0.51", 0))
            connections.append(slow.enter_context(context.wrap_socket(plain, server_hostname="payments.example.org")))
            connections[-1].setblocking(False)
            connections[-1].sendall(head)

        refused: set[ssl.SSLSocket] = set()

        def are_refused() -> bool:
            refused.update(filter(was_refused, connections))
            return len(refused) >= 30

        wait_until(are_refused)

        assert len(refused) == 30
        with stack.nginx.client("127.0.0.52") as another:
            assert stack.get(another, "/api/v1/me").status_code == 200


def was_refused(connection: ssl.SSLSocket) -> bool:
    try:
        return connection.recv(1000).startswith(b"HTTP/1.1 429")
    except ssl.SSLWantReadError:
        return False


def test_what_nginx_cannot_read_is_refused_as_a_problem_that_has_a_page(stack: Stack, client: requests.Session) -> None:
    host = "Host: payments.example.org"
    for request, status in {
        "Good morning": 400,
        "GET / HTTP/1.1": 400,  # no Host
        f"GET / HTTP/1.1\r\n{host}\r\nX-Long: {'x' * 9_000}": 400,
        f"GET /{'x' * 9_000} HTTP/1.1\r\n{host}": 414,
        f"TRACE / HTTP/1.1\r\n{host}": 405,
        f"POST / HTTP/1.1\r\n{host}\r\nTransfer-Encoding: gzip": 501,
        f"GET / HTTP/3.0\r\n{host}": 505,
    }.items():
        answer = ask_raw(stack, request)
        assert answer.startswith(f"HTTP/1.1 {status} "), (request[:40], answer[:200])
        head, _, body = answer.partition("\r\n\r\n")
        assert "Content-Type: application/problem+json" in head, request[:40]
        problem = json.loads(body)
        assert (problem["status"], problem["retryable"]) == (status, False)
        page = client.get(f"{stack.nginx.url}{problem['type']}", timeout=PATIENCE_SECONDS)
        assert (page.status_code, page.json()["title"]) == (200, problem["title"])


def test_nginx_says_the_rest_as_a_problem_too(stack: Stack, client: requests.Session) -> None:
    port = stack.nginx.https_port

    assert_problem(requests.get(f"http://127.0.0.1:{port}/", timeout=PATIENCE_SECONDS), 400)  # not https
    # The page of the problems itself is not to be asked for.
    assert_problem(client.get(f"{stack.nginx.url}/.problem", timeout=PATIENCE_SECONDS), 404)


def ask_raw(stack: Stack, request: str) -> str:
    """An answer to what no client of good manners would send."""
    with (
        socket.create_connection(("127.0.0.1", stack.nginx.https_port), PATIENCE_SECONDS) as plain,
        stack.nginx.tls().wrap_socket(plain, server_hostname="payments.example.org") as connection,
    ):
        connection.sendall(f"{request}\r\nConnection: close\r\n\r\n".encode())
        return connection.makefile(encoding="latin-1", newline="").read()


def test_the_metrics_are_open_to_this_machine_alone(stack: Stack, client: requests.Session) -> None:
    assert client.get(f"{stack.nginx.url}/metrics", timeout=PATIENCE_SECONDS).status_code == 200
    with stack.nginx.client("127.0.0.2") as stranger:
        for path in ("/metrics", "//metrics", "/%6detrics", "/./metrics"):
            answer = stranger.get(f"{stack.nginx.url}{path}", timeout=PATIENCE_SECONDS)
            assert_problem(answer, 403)
            assert "payments_" not in answer.text


def test_health_is_answered_by_the_listener_that_waits_for_no_thread(stack: Stack, client: requests.Session) -> None:
    wait_until(lambda: client.get(f"{stack.nginx.url}/readyz", timeout=PATIENCE_SECONDS).status_code == 200)
    ready = client.get(f"{stack.nginx.url}/readyz", timeout=PATIENCE_SECONDS).json()

    assert ready["parts"]["requests"] == ready["parts"]["database"] == "ok"
    assert client.get(f"{stack.nginx.url}/healthz", timeout=PATIENCE_SECONDS).json() == {"status": "ok"}


def test_nginx_says_when_it_passed_a_request_on_whatever_the_client_says(
    stack: Stack, client: requests.Session
) -> None:
    long_ago = {"X-Request-Start": f"t={time.time() - 60:.3f}"}
    answer = client.get(f"{stack.nginx.url}/api/v1/me", headers=long_ago, timeout=PATIENCE_SECONDS)

    assert answer.status_code == 401
    measured = client.get(f"{stack.nginx.url}/metrics", timeout=PATIENCE_SECONDS).text
    (count,) = re.findall(r"^payments_queue_seconds_count (\S+)$", measured, flags=re.MULTILINE)
    assert float(count) > 0
