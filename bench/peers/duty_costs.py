"""The process of ``bench.duties``: sends creates through ``fastapi_asyncpg_duties`` with different duties."""

import asyncio
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, Header, Response

from bench.peers.fastapi_asyncpg import SECRET, PaymentCreate, get_claims
from bench.peers.fastapi_asyncpg_duties import Duty, make_app

BATCHES = 150
# Few enough that some batch runs undisturbed.
REQUESTS = 50
COUNTED = 5
NONE, ALL = "none of them", "all of them"

BODY = "x" * 700

Environ = tuple[dict[str, Any], bytes]


async def create_nothing(
    wanted: PaymentCreate,
    idempotency_key: Annotated[str, Header(max_length=255)],
    claims: Annotated[dict[str, Any], Depends(get_claims)],
) -> Response:
    """The peer's create without its database."""
    request_hash = hashlib.sha256(wanted.model_dump_json().encode()).hexdigest()
    body = f"{request_hash} {claims['sub']} {idempotency_key} {BODY}"
    return Response(body, 201, media_type="application/json")


async def measure() -> None:
    sets = {NONE: frozenset[Duty](), **{duty.value: frozenset({duty}) for duty in Duty}, ALL: frozenset(Duty)}
    apps = {name: make_app(duties, create=create_nothing) for name, duties in sets.items()}
    requests = make_requests()
    least = dict.fromkeys(apps, float("inf"))
    for _ in range(BATCHES):
        for name, app in apps.items():
            batch = list(itertools.islice(requests, REQUESTS))
            least[name] = min(least[name], await send(app, batch) / REQUESTS * 1e6)
    calls = {name: await count_calls(app, requests) for name, app in apps.items()}
    for name, microseconds in least.items():
        more_us, more_calls = microseconds - least[NONE], calls[name] - calls[NONE]
        sys.stdout.write(f"{name:46} {microseconds:4.0f} us, {more_us:+4.0f}; {calls[name]:4} calls, {more_calls:+4}\n")


async def count_calls(app: FastAPI, requests: Iterator[Environ]) -> int:
    """The calls of Python and C functions of one create; the least of a few."""
    return min([await calls_of(app, request) for request in itertools.islice(requests, COUNTED)])


async def calls_of(app: FastAPI, request: Environ) -> int:
    calls = 0

    def counted(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(counted)
    try:
        await send(app, [request])
    finally:
        sys.setprofile(None)
    return calls


async def send(app: FastAPI, requests: list[Environ]) -> float:
    """Send the requests; returns seconds of processor time."""
    started = time.process_time()
    for scope, body in requests:
        await send_one(app, scope, body)
    return time.process_time() - started


async def send_one(app: FastAPI, scope: dict[str, Any], body: bytes) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def respond(message: dict[str, Any]) -> None:
        if message.get("status", 201) != 201:  # noqa: PLR2004  # created
            sys.exit(f"a create was responded to with {message}")

    await app(scope, receive, respond)


def make_requests() -> Iterator[Environ]:
    """Creates of different consultations, as uvicorn would pass them on."""
    token = jwt.encode({"sub": "1", "ver": 0}, SECRET, algorithm="HS256").encode()
    for number in itertools.count(1):
        wanted = {"consultation_id": number, "amount": 5000, "payment_method": "stripe"}
        body = json.dumps(wanted).encode()
        headers = [
            (b"host", b"127.0.0.1"),
            (b"x-forwarded-for", b"203.0.113.7"),
            (b"x-forwarded-proto", b"https"),
            (b"authorization", b"Bearer " + token),
            (b"idempotency-key", b"key-%d" % number),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        path = "/api/v1/payments"
        yield (
            {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.3"},
                "http_version": "1.1",
                "server": ("127.0.0.1", 8000),
                "client": ("127.0.0.1", 50000),
                "scheme": "http",
                "root_path": "",
                "method": "POST",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "headers": headers,
                "state": {},
            },
            body,
        )


if __name__ == "__main__":
    asyncio.run(measure())
