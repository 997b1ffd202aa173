"""A look-alike of a gateway over real HTTP, in threads of the process that runs the tests, that tests may upset.

It outlives any service that they kill. What a gateway knows and does is its subclass's.
"""

import select
import socket
import threading
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tests.support.fake_stripe_http import FakeResponse, Received, Server
from tests.support.waiting import PATIENCE_SECONDS

Mode = Literal["drop", "error", "error_before", "hang", "hang_before", "late", "limited", "refuse"]


@dataclass(frozen=True)
class Books:
    """What of a gateway's objects matters in the end, without their ids unless these are stored.

    ``payable``: each thing by which customers can pay or have paid, in words, sorted. ``returned``: of each refund, by
    its id, the amount in minor units and the status.
    """

    payable: list[str]
    returned: dict[str, tuple[int, str]]


class Refusal(Exception):
    """An error response, as the gateway writes it."""

    def __init__(self, answer: FakeResponse) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass
class Trouble:
    """A fault for the next requests of a kind; ``left`` counts them down, None is for all of them.

    ``should_retry``: the header Stripe-Should-Retry of a 500; None: without it.
    """

    mode: Mode
    method: str
    path: str
    left: int | None
    should_retry: bool | None = None

    def concerns(self, request: Received) -> bool:
        return self.left != 0 and request.method == self.method and request.path.startswith(self.path)


@dataclass(eq=False)
class Hanging:
    """A request whose client waits for a response. Shutting down the bell ends it."""

    key: str | None
    client: socket.socket
    bell: socket.socket


class FakeGateway:
    """Counts what it receives, and treats requests well unless it is told to misbehave."""

    def __init__(self) -> None:
        # One lock around everything: twenty refunds at once are twenty refunds one after the other.
        self._lock = threading.Condition()
        self._hanging: list[Hanging] = []
        self._forget_requests()
        self._server = Server(self.answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()

    def _forget_requests(self) -> None:
        self.received: list[Received] = []
        self._troubles: list[Trouble] = []
        self._late: list[Received] = []

    def count(self, method: str, path_prefix: str) -> int:
        """How many such requests have arrived, answered or not."""
        with self._lock:
            return sum(seen.method == method and seen.path.startswith(path_prefix) for seen in self.received)

    def misbehave(self, mode: Mode, *, method: str = "POST", path: str, times: int | None = 1) -> None:
        """Do so with the next ``times`` requests whose path begins with ``path``; None is for all of them.

        - ``drop``: apply, and close the connection without a response.
        - ``error``: apply, and respond with 500.
        - ``error_before``: respond with 500; apply nothing.
        - ``hang``: apply, and respond only after ``release()``.
        - ``hang_before``: never respond; apply nothing. ``release()`` closes the connection.
        - ``late``: close the connection at once, and apply at ``apply_late()``.
        - ``limited``: respond with 429, as to too many requests; apply nothing.
        - ``refuse``: respond with an error of the gateway's own; apply nothing.
        """
        self._expect(Trouble(mode, method, path, times))

    def _expect(self, trouble: Trouble) -> None:
        assert trouble.mode in get_args(Mode)
        with self._lock:
            self._troubles.append(trouble)

    def behave(self) -> None:
        """Serve new requests normally again; requests that hang still hang, and late ones stay late."""
        with self._lock:
            self._troubles.clear()

    def wait_until_hanging(self, count: int = 1) -> None:
        """Wait until so many clients wait for a response: only then has a ``hang`` been applied."""
        with self._lock:
            assert self._lock.wait_for(lambda: len(self._hanging) >= count, PATIENCE_SECONDS)

    def release(self) -> None:
        """Release the requests that hang now; later ones may hang again."""
        with self._lock:
            while self._hanging:
                self._hanging.pop().bell.shutdown(socket.SHUT_WR)

    def apply_late(self) -> None:
        """Apply the ``late`` requests now."""
        with self._lock:
            late, self._late = self._late, []
            for request in late:
                self._once(request)

    def answer(self, request: Received, authorization: str | None, client: socket.socket) -> FakeResponse | None:
        """The response; None to close the connection without one."""
        with self._lock:
            self.received.append(request)
            try:
                self._check_key(request, authorization)
            except Refusal as refusal:
                return refusal.answer
            trouble = next((trouble for trouble in self._troubles if trouble.concerns(request)), None)
            if trouble is None:
                return self._once(request)
            if trouble.left is not None:
                trouble.left -= 1
            answer = self._spoilt(trouble, request)
            if trouble.mode not in ("hang", "hang_before"):
                return answer
            hanging, waiting = self._start_hanging(request.idempotency_key, client)
        return answer if self._hang(hanging, waiting) else None

    def _spoilt(self, trouble: Trouble, request: Received) -> FakeResponse | None:
        """Apply the request if the fault says so; returns the response that is sent, if any."""
        answer = self._once(request) if trouble.mode in ("drop", "error", "hang") else None
        if trouble.mode in ("error", "error_before"):
            return self._internal_error(trouble)
        if trouble.mode == "limited":
            return FakeResponse(429, b'{"error": {"type": "invalid_request_error", "code": "rate_limit"}}')
        if trouble.mode == "refuse":
            return self._refuse(request)
        if trouble.mode == "late":
            self._late.append(request)
        return answer if trouble.mode == "hang" else None

    def _start_hanging(self, key: str | None, client: socket.socket) -> tuple[Hanging, socket.socket]:
        waiting, bell = socket.socketpair()
        hanging = Hanging(key, client, bell)
        self._hanging.append(hanging)
        self._lock.notify_all()
        return hanging, waiting

    def _hang(self, hanging: Hanging, waiting: socket.socket) -> bool:
        """True if it was released; False if the client closed the connection."""
        with hanging.bell, waiting:
            ready, _, _ = select.select([hanging.client, waiting], [], [])
            with self._lock:
                # ``release`` removes it before it shuts down the bell, so that no closed bell is shut down.
                if hanging in self._hanging:
                    self._hanging.remove(hanging)
        return waiting in ready

    # What a gateway is. The lock is held.

    @abstractmethod
    def _once(self, request: Received) -> FakeResponse:
        """Do it, or refuse it, unless a response is stored under its key already."""

    @abstractmethod
    def _check_key(self, request: Received, authorization: str | None) -> None:
        """Check the API key.

        Raises:
            Refusal: it is not the account's.
        """

    @abstractmethod
    def _refuse(self, request: Received) -> FakeResponse:
        """Refuse it for a reason of the gateway's own."""

    @abstractmethod
    def _internal_error(self, trouble: Trouble) -> FakeResponse:
        """The response of a gateway that failed."""


Wire = dict[str, Any]
