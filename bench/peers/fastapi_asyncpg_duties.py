"""Peer: ``fastapi_asyncpg`` with the duties that this service has for each request besides its work.

They are written for speed: one ASGI middleware, no framework's. Each can be left out, to measure what it costs. Started
by ``uvicorn bench.peers.fastapi_asyncpg_duties:app --no-access-log``, with the metrics' folder in
``PROMETHEUS_MULTIPROC_DIR``.
"""

import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Set
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bench.peers.fastapi_asyncpg import Created, create_payment, lifespan


class Duty(StrEnum):
    """What is done for each request, or in ``PROBLEMS`` for each error."""

    REQUEST_ID = "request id"
    LOG = "JSON log line"
    METRICS = "counter and histogram, shared by the processes"
    STRICT_JSON = "strict JSON, without duplicate members"
    PROBLEMS = "problem details"
    HEADERS = "security headers"


ACCEPTED_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
HEADERS = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
UNKNOWN = "unknown"

log = logging.getLogger("peer")
log.setLevel(logging.INFO)
log.addHandler(logging.StreamHandler())

# Created once: json.dumps would create a new encoder for each line.
encoder = json.JSONEncoder()

requests_total = Counter("payments_http_requests_total", "Requests served", ["route", "method", "status"])
request_seconds = Histogram(
    "payments_http_request_duration_seconds",
    "Seconds from the request's arrival to its response",
    ["route", "method"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


@cache
def counter(route: str, method: str, status: int) -> Counter:
    return requests_total.labels(route, method, status)


@cache
def histogram(route: str, method: str) -> Histogram:
    return request_seconds.labels(route, method)


class Duties:
    """The middleware for all duties that every response has."""

    def __init__(self, app: ASGIApp, duties: Set[Duty]) -> None:
        self._app = app
        self._has_id = Duty.REQUEST_ID in duties
        self._logs = Duty.LOG in duties
        self._counts = Duty.METRICS in duties
        self._headers = HEADERS if Duty.HEADERS in duties else []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        added, request_id = self._headers, None
        if self._has_id:
            request_id = request_id_of(scope)
            scope["request_id"] = request_id
            added = [*added, (b"x-request-id", request_id.encode())]
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].extend(added)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            self._record(scope, status, time.perf_counter() - started, request_id)

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str | None) -> None:
        matched = scope.get("route")
        route = UNKNOWN if matched is None else matched.path
        method = UNKNOWN if matched is None else scope["method"]
        if self._counts:
            counter(route, method, status).inc()
            histogram(route, method).observe(seconds)
        if self._logs:
            line = {
                "timestamp": datetime.now(UTC).isoformat(),
                "level": "info",
                "event": "Request",
                "logger": log.name,
                "request_id": request_id,
                "route": route,
                "method": method,
                "status": status,
                "ms": round(seconds * 1000, 1),
            }
            log.info(encoder.encode(line))


def request_id_of(scope: Scope) -> str:
    """The client's, if it forges no log line; else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and ACCEPTED_REQUEST_ID.fullmatch(value.decode("latin-1")):
            return str(value.decode("latin-1"))
    return uuid.uuid4().hex


class StrictRequest(Request):
    """A request whose JSON body is refused if it is ambiguous."""

    async def json(self) -> Any:
        return json.loads(
            await self.body(), object_pairs_hook=object_without_duplicates, parse_constant=refuse_constant
        )


def object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise HTTPException(400, "A member of an object is named twice.")
    return members


def refuse_constant(name: str) -> None:
    raise HTTPException(400, f"{name} is not JSON.")


class StrictRoute(APIRoute):
    """A route whose requests are strict."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly


async def http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)  # noqa: S101  # for the type checker: registered for it
    detail = error.detail if isinstance(error.detail, dict) else {"detail": error.detail}
    return problem(request, error.status_code, **detail)


async def validation_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # for the type checker: registered for it
    if any(each["type"] == "json_invalid" for each in error.errors()):
        return problem(request, 400, detail="The body is not JSON.")
    errors = {str(each["loc"][-1]): [each["msg"]] for each in error.errors()}
    return problem(request, 422, detail="The request is not valid.", errors=errors)


def problem(request: Request, status: int, **members: Any) -> Response:
    phrase = HTTPStatus(status).phrase
    body = {
        "type": f"/problems/{phrase.lower().replace(' ', '-')}",
        "title": phrase,
        "status": status,
        "instance": request.url.path,
        "request_id": request.scope.get("request_id"),
        **members,
    }
    return JSONResponse(body, status, media_type="application/problem+json")


async def show_metrics() -> Response:
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # untyped there
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def make_app(duties: Set[Duty], *, create: Callable[..., Awaitable[Response]] = create_payment) -> FastAPI:
    """The peer with these duties; ``create`` is its view."""
    app = FastAPI(lifespan=lifespan)
    if Duty.STRICT_JSON in duties:
        app.router.route_class = StrictRoute
    app.post("/api/v1/payments", status_code=201, response_model=Created)(create)
    app.get("/metrics")(show_metrics)
    if Duty.PROBLEMS in duties:
        app.exception_handler(StarletteHTTPException)(http_problem)
        app.exception_handler(RequestValidationError)(validation_problem)
    if duties - {Duty.STRICT_JSON, Duty.PROBLEMS}:
        app.add_middleware(Duties, duties=duties)
    return app


app = make_app(frozenset(Duty))
