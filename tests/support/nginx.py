"""nginx with the shipped site, on free ports and with a certificate for the tests."""

import json
import re
import shlex
import shutil
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import requests
from requests.adapters import HTTPAdapter

from tests.support.databases import ROOT
from tests.support.service import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until, wait_until_answered

SITE = ROOT / "deploy" / "nginx" / "payments.conf"

# The part of an operator's nginx.conf that includes the site; all its files go to one folder.
_AROUND = """
daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    gzip on;
    gzip_types *;
    gzip_min_length 1;
    gzip_proxied any;
    ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    # So that a test can use many IPv6 addresses: a machine has only few.
    set_real_ip_from {tells_its_address};
    real_ip_header X-Test-Address;
    include {folder}/payments.conf;
}}
"""


class FromAddress(HTTPAdapter):
    """Sends from another address of this machine: all of 127.0.0.0/8 are its own."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, source_address=(self._address, 0), **kwargs)


@dataclass(frozen=True)
class Nginx:
    """A running nginx."""

    # A client at this address is taken to be at the address in its X-Test-Address.
    TELLS_ITS_ADDRESS: ClassVar[str] = "127.0.0.61"

    folder: Path
    http_port: int
    https_port: int
    certificate: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.https_port}"

    @property
    def log(self) -> str:
        return (self.folder / "payments.log").read_text()

    def logged(self, request_id: str) -> dict[str, str]:
        """The line of a request in its log; nginx writes it after it has sent the response."""
        wait_until(lambda: request_id in self.log)
        (line,) = [line for line in map(json.loads, self.log.splitlines()) if line["request_id"] == request_id]
        found: dict[str, str] = line
        return found

    def client(self, address: str = "127.0.0.1") -> requests.Session:
        """A client at that address, which trusts the certificate and ignores proxies of the environment."""
        session = requests.Session()
        session.mount("https://", FromAddress(address))
        session.verify = str(self.certificate)
        session.trust_env = False
        return session

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))


@contextmanager
def nginx_for(
    socket: Path, folder: Path, health_port: int, changes: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Nginx]:
    """nginx in front of the service on that socket and port, with the shipped site except for ports and paths.

    ``changes``: texts of the site, and what is there instead of them.
    """
    program = shutil.which("nginx") or "/usr/sbin/nginx"  # which is not on every user's PATH
    nginx = Nginx(folder, free_port(), free_port(), folder / "certificate.pem")
    make_certificate(nginx.certificate, folder / "key.pem")
    (folder / "payments.conf").write_text(_site(nginx, socket, health_port, changes))
    (folder / "nginx.conf").write_text(_AROUND.format(folder=folder, tells_its_address=nginx.TELLS_ITS_ADDRESS))
    process = subprocess.Popen([program, "-c", folder / "nginx.conf", "-e", folder / "error.log"])
    try:
        wait_until_answered(f"http://127.0.0.1:{nginx.http_port}", process, folder / "error.log")
        yield nginx
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def _site(nginx: Nginx, socket: Path, health_port: int, changes: Mapping[str, str]) -> str:
    """The shipped file with other ports and paths; it has to contain each of them."""
    site = SITE.read_text()
    for shipped, ours in {
        **changes,
        "listen 80;": f"listen 127.0.0.1:{nginx.http_port};",
        "listen [::]:80;": "",
        "listen 443 ssl;": f"listen 127.0.0.1:{nginx.https_port} ssl;",
        "listen [::]:443 ssl;": "",
        "/etc/nginx/payments/fullchain.pem": str(nginx.certificate),
        "/etc/nginx/payments/privkey.pem": str(nginx.folder / "key.pem"),
        "/var/log/nginx/payments.log": str(nginx.folder / "payments.log"),
        "/run/payments/gunicorn.sock": str(socket),
        "server 127.0.0.1:8001 max_fails=0;": f"server 127.0.0.1:{health_port} max_fails=0;",
    }.items():
        assert shipped in site, shipped
        site = site.replace(shipped, ours)
    return site


def make_certificate(certificate: Path, key: Path) -> None:
    """By the command of docs/deployment.md, for an address too."""
    guide = (ROOT / "docs" / "deployment.md").read_text()
    (written,) = re.findall(r"^    (openssl req (?:.*\\\n)*.+)$", guide, flags=re.MULTILINE)
    replaced = {
        "/etc/nginx/payments/fullchain.pem": str(certificate),
        "/etc/nginx/payments/privkey.pem": str(key),
        "/CN=$NAME": "/CN=payments.example.org",
        "subjectAltName=DNS:$NAME": "subjectAltName=DNS:payments.example.org,IP:127.0.0.1",
    }
    command = shlex.split(written.replace("\\\n", ""))
    assert replaced.keys() <= set(command), command
    subprocess.run([replaced.get(word, word) for word in command], check=True, capture_output=True)
