"""Runs ``listener.py`` beside gunicorn: started by its master, started again if it ends, and ended with the master."""

import errno
import json
import os
import signal
import socket
import subprocess  # nosec B404  # starts our own interpreter, without a shell
import sys
import time
from pathlib import Path
from typing import Any

from payments_app.health.listener import Address

PROGRAM = Path(__file__).with_name("listener.py")

# Seconds for which the address may still be taken when the service starts: the listener of a killed master ends within
# a fraction of a second.
BIND_SECONDS = 3

# Seconds between two starts at least: a program that cannot start must not keep the master busy.
START_AGAIN_AFTER_SECONDS = 5

# In the environment of a new master (USR2): the descriptor of the socket, which the old master goes on using.
DESCRIPTOR_NAME = "PAYMENTS_HEALTH_DESCRIPTOR"


class HealthListener:
    """The listening socket, which belongs to the master, and the process that answers on it.

    The socket stays open while the process is started again, so connections wait and are not refused. After USR2 the
    old and the new master have a process each on the same socket, until the old master stops.
    """

    def __init__(self, master: Any, address: tuple[str, int]) -> None:
        """``master``: gunicorn's arbiter, whose main loop calls ``manage_workers`` at least once a second.

        Raises:
            OSError: the address cannot be used.
        """
        self._master = master
        self._manage_workers, self._stop = master.manage_workers, master.stop
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._socket = _inherited_socket() or _bind(address)
        master.manage_workers, master.stop = self._manage, self._stop_all

    def close_in_worker(self) -> None:
        """Close the socket in a forked worker: otherwise it would keep the address taken after the master's death."""
        self._socket.close()

    def hand_over(self) -> None:
        """Leave the socket to the program that replaces this process, which gunicorn has forked for it (USR2)."""
        self._socket.set_inheritable(True)
        self._master.cfg.env_orig[DESCRIPTOR_NAME] = str(self._socket.fileno())

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def _manage(self) -> None:
        self._manage_workers()
        if self._process is not None and self._process.poll() is None:
            return
        now = time.monotonic()
        if self._process is not None:
            if now - self._started_at < START_AGAIN_AFTER_SECONDS:
                return
            self._master.log.error("The health listener has ended, and is started again")
        self._started_at = now
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        descriptor = self._socket.fileno()
        address = json.dumps(_reachable(self._master.LISTENERS[0].getsockname()))
        return subprocess.Popen(  # noqa: S603  # our own interpreter and program
            # -I and -S: nothing of the environment or of other packages is loaded.
            [sys.executable, "-I", "-S", str(PROGRAM), str(descriptor), str(os.getpid()), address],
            cwd="/",
            # No secrets; but some interpreters need this to start.
            env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            # Ctrl-C must only reach the master, which then stops all.
            start_new_session=True,
        )

    def _stop_all(self, graceful: bool = True) -> None:  # gunicorn's signature
        if self._process is not None:
            # If a new master runs, its listener answers for the service.
            self._process.send_signal(signal.SIGTERM if self._master.reexec_pid else signal.SIGUSR1)
        self._stop(graceful)


def _inherited_socket() -> socket.socket | None:
    descriptor = os.environ.pop(DESCRIPTOR_NAME, None)
    if descriptor is None or "GUNICORN_PID" not in os.environ:
        return None
    inherited = socket.socket(fileno=int(descriptor))
    inherited.set_inheritable(False)
    return inherited


def _bind(address: tuple[str, int]) -> socket.socket:
    deadline = time.monotonic() + BIND_SECONDS
    while True:
        try:
            return _listen(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _listen(address: tuple[str, int]) -> socket.socket:
    family, kind, protocol, _name, found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(found)
        listening.listen()
    except OSError:
        listening.close()
        raise
    return listening


def _reachable(name: Any) -> Address:
    """The address by which a process on this machine reaches a socket that listens on ``name``."""
    if not isinstance(name, tuple):
        return os.fsdecode(name)
    host, port = str(name[0]), int(name[1])
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104  # not bound here
