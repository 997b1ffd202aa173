"""The token of a payment link is in the path of a request: none of the logs on its way has it."""

import pytest
import requests

from tests.deploy.test_smuggling import ask
from tests.support.full_stack import Stack
from tests.support.waiting import PATIENCE_SECONDS, wait_until

TOKEN = "the-token-of-a-link-0123456789"
# More than nginx lets through, which it complains about with the whole line of the request.
TOO_MUCH = 70_000


@pytest.mark.parametrize(
    ("method", "path", "length", "status"),
    [
        ("GET", f"/pay/{TOKEN}", 0, 200),
        ("GET", f"/pay/{TOKEN}?utm_source=mail", 0, 200),
        ("GET", f"/p%61y/{TOKEN}", 0, 200),
        ("GET", f"//pay//{TOKEN}", 0, 404),
        ("GET", f"/PAY/{TOKEN}", 0, 404),
        ("POST", f"/pay/{TOKEN}", 0, 405),
        ("POST", f"/pay/{TOKEN}", TOO_MUCH, 413),
    ],
)
def test_no_log_has_the_token_of_a_link(stack: Stack, method: str, path: str, length: int, status: int) -> None:
    request_id = f"link-{method}-{length}-{abs(hash(path))}"
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: payments.example.org",
        f"X-Request-ID: {request_id}",
        f"Referer: https://payments.example.org{path}",
        f"Content-Length: {length}",
        "Connection: close",
    ]

    answer = ask(stack, "nginx", "\r\n".join([*lines, "", "x" * length]))

    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} "), answer
    assert "Referrer-Policy: no-referrer" in head
    assert TOKEN not in body
    wait_until(lambda: request_id in stack.nginx.log)  # written after the answer was sent
    _assert_nowhere(stack)


def test_plain_http_is_redirected_without_a_line_in_any_log(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.nginx.http_port}/pay/{TOKEN}"
    answer = requests.get(url, allow_redirects=False, timeout=PATIENCE_SECONDS)

    assert answer.headers["Location"] == f"https://payments.example.org/pay/{TOKEN}"
    _assert_nowhere(stack)


def _assert_nowhere(stack: Stack) -> None:
    logs = [*stack.nginx.folder.glob("*.log"), stack.service.log]
    assert len(logs) >= 3
    for log in logs:
        assert TOKEN not in log.read_text(), log
