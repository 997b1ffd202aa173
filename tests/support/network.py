"""A network between a client and a server that a test can cut: TCP connections that stay open, and carry nothing."""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Seconds until a change of ``cut`` is noticed.
NOTICED_SECONDS = 0.02

CHUNK_BYTES = 65_536


class Network:
    """One address that leads to another; a thread carries the bytes."""

    def __init__(self, to: tuple[str, int]) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._is_cut = threading.Event()
        self._is_over = threading.Event()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    @contextmanager
    def cut(self) -> Iterator[None]:
        """While the block runs, nothing arrives and no new connection leads on; nobody is told."""
        self._is_cut.set()
        try:
            yield
        finally:
            self._is_cut.clear()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
        for each in (self._listener, *self._peers):
            each.close()

    def _carry(self) -> None:
        while not self._is_over.is_set():
            if self._is_cut.is_set():
                self._is_over.wait(NOTICED_SECONDS)
                continue
            for key, _ in self._selector.select(NOTICED_SECONDS):
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj in self._peers:  # its peer may have been closed in this round
                    self._pass_on(key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._to, timeout=1)
        except OSError:
            client.close()
            return
        for one, other in ((client, server), (server, client)):
            one.settimeout(1)  # for what is sent: the receiver reads
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, one: socket.socket) -> None:
        other = self._peers[one]
        with suppress(OSError):
            if data := one.recv(CHUNK_BYTES):
                other.sendall(data)
                return
        for each in (one, other):
            self._selector.unregister(each)
            del self._peers[each]
            each.close()


@contextmanager
def network_to(*addresses: tuple[str, int]) -> Iterator[list[Network]]:
    """One for each address."""
    networks = [Network(address) for address in addresses]
    try:
        yield networks
    finally:
        for network in networks:
            network.close()
