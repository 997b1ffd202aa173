"""One running stack for all tests here: real nginx, gunicorn, PostgreSQL and Redis."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.full_stack import Stack, running_stack
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="package")  # not longer: its health listener writes to Redis each second
def stack(redis_server: RedisServer) -> Iterator[Stack]:
    if shutil.which("nginx") is None and not Path("/usr/sbin/nginx").exists():
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    with running_stack(redis_server) as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[requests.Session]:
    with stack.nginx.client() as client:
        yield client
