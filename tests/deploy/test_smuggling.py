"""What hides in a request's body, or in the spelling of its headers, is neither run nor believed."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.full_stack import Stack
from tests.support.socket_activated import SocketActivated
from tests.support.waiting import PATIENCE_SECONDS

# Behind each, the Content-Length tells the truth; who goes by anything else finds another request in the body.
LENGTHS = {
    "one length": "",
    "chunks besides": "Transfer-Encoding: chunked\r\n",
    "chunks in capitals": "TRANSFER-ENCODING: CHUNKED\r\n",
    "chunks with a blank before the colon": "Transfer-Encoding : chunked\r\n",
    "chunks with a tab": "Transfer-Encoding:\tchunked\r\n",
    "chunks with a vertical tab": "Transfer-Encoding:\x0bchunked\r\n",
    "chunks in another spelling": "Transfer-Encoding: xchunked\r\n",
    "chunks as the second coding": "Transfer-Encoding: identity, chunked\r\n",
    "chunks twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "chunks with an underscore": "Transfer_Encoding: chunked\r\n",
    "chunks on a folded line": "X: y\r\n Transfer-Encoding: chunked\r\n",
    "chunks behind a bare line feed": "X: y\nTransfer-Encoding: chunked\r\n",
    "chunks behind a bare carriage return": "X: y\rTransfer-Encoding: chunked\r\n",
    "a length of nothing before": "Content-Length: 0\r\n",
    "a length of nothing with an underscore": "Content_Length: 0\r\n",
    "a length of nothing with a sign": "Content-Length: +0\r\n",
    "a length to be dropped on the way": "Connection: Content-Length\r\n",
}

TARGETS = ["nginx", "service"]


@pytest.fixture(scope="module")
def keeping(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SocketActivated]:
    """The service, but it keeps connections: what hides behind a request could only be run on one that goes on."""
    folder = tmp_path_factory.mktemp("keeping")
    environment = {**stack.service.environment, "HEALTH_BIND": ""}  # that is the other one's
    service = SocketActivated(folder, "--keep-alive", "75", "--worker-connections", "1000", **environment)
    service.start()
    try:
        yield service
    finally:
        service.close()


def ask(stack: Stack, target: str, request: str, past_nginx: Path | None = None) -> str:
    """All that is answered, by nginx or past it, until the connection is closed.

    ``past_nginx``: the service's socket, if it is not the stack's.
    """
    if target == "nginx":
        plain = socket.create_connection(("127.0.0.1", stack.nginx.https_port), PATIENCE_SECONDS)
        connection: socket.socket = stack.nginx.tls().wrap_socket(plain, server_hostname="payments.example.org")
    else:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect(str(past_nginx or stack.service.path))
    with closing(connection):
        connection.sendall(request.encode("latin-1"))
        return connection.makefile(encoding="latin-1", newline="").read()


def payment(stack: Stack, consultation_id: int, *headers: str) -> str:
    """A request to pay that is good, and the last on its connection."""
    body = json.dumps({"consultation_id": consultation_id, "amount": 5000, "payment_method": "stripe"})
    lines = [
        "POST /api/v1/payments HTTP/1.1",
        "Host: payments.example.org",
        "X-Forwarded-Proto: https",
        f"Authorization: Bearer {stack.people.patient.token}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(lines) + f"\r\n\r\n{body}"


def paid(stack: Stack, consultation_id: int) -> int:
    return stack.rows.count("payments", "consultation_id = :id", id=consultation_id)


@pytest.mark.parametrize("target", TARGETS)
def test_a_request_in_the_body_of_another_is_not_run(stack: Stack, keeping: SocketActivated, target: str) -> None:
    hidden_ids = {name: stack.unpaid() for name in LENGTHS}
    head = "POST /api/v1/me HTTP/1.1\r\nHost: payments.example.org\r\nX-Forwarded-Proto: https\r\n"
    # An honest one comes behind, so that the connection is kept until what is hidden could have been run.
    last = "GET /api/v1/me HTTP/1.1\r\nHost: payments.example.org\r\nConnection: close\r\n\r\n"
    for name, header in LENGTHS.items():
        body = f"0\r\n\r\n{payment(stack, hidden_ids[name])}"

        answers = ask(stack, target, f"{head}{header}Content-Length: {len(body)}\r\n\r\n{body}{last}", keeping.path)

        assert "HTTP/1.1 2" not in answers, (name, answers)
    # The same bytes are a good request where chunks alone are spoken of: somebody who believed in them would have paid.
    open_id = stack.unpaid()
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{payment(stack, open_id)}"
    answers = ask(stack, target, chunked, keeping.path)
    assert answers.count("HTTP/1.1 201 ") == paid(stack, open_id) == 1
    assert {name: paid(stack, hidden_id) for name, hidden_id in hidden_ids.items()} == dict.fromkeys(LENGTHS, 0)


@pytest.mark.parametrize("target", TARGETS)
def test_a_header_in_another_spelling_is_not_that_header(stack: Stack, target: str) -> None:
    """In WSGI an underscore and a hyphen would be one."""
    consultation_id = stack.unpaid()

    answer = ask(stack, target, payment(stack, consultation_id, "Idempotency_Key: smuggled", "X_Request_ID: smuggled"))

    assert answer.startswith("HTTP/1.1 201 ")
    assert "smuggled" not in answer
    assert stack.rows.count("idempotency_keys", "key = 'smuggled'") == 0


def test_that_it_came_by_https_is_not_to_be_said_in_another_spelling(stack: Stack) -> None:
    consultation_id = stack.unpaid()
    clear = payment(stack, consultation_id, "X_Forwarded_Proto: https").replace("X-Forwarded-Proto: https\r\n", "")

    answer = ask(stack, "service", clear)

    assert answer.startswith("HTTP/1.1 403 ")
    assert paid(stack, consultation_id) == 0
