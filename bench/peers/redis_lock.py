"""Peer: the create behind a lock in Redis, as guides for PHP frameworks teach it.

``SET lock owner NX PX 5000``; if it is taken, sleep for 100 ms and try again, at most 50 times. With the lock, look for
a payment, and insert one if there is none. Everything else is from ``plain_flask``.

Started by ``gunicorn bench.peers.redis_lock:app``.
"""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from flask import Flask, Response, abort
from flask_jwt_extended import current_user, jwt_required

from bench.peers import plain_flask

LEASE_MS = 5_000
RETRY_SECONDS = 0.1
MAX_ATTEMPTS = 50

# Only the holder may release it: another request may hold it after the lease has expired.
RELEASE = 'if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) else return 0 end'

app: Flask = plain_flask.app
app.view_functions.pop("create_payment")
store = redis.Redis.from_url(os.environ["REDIS_URL"])
release = store.register_script(RELEASE)


@app.endpoint("create_payment")
@jwt_required()
def create_payment() -> Response:
    wanted, key = plain_flask.read_request()
    user_id = current_user.id
    plain_flask.db.session.rollback()  # no open transaction while waiting for the lock
    with lock(f"payment:lock:{wanted['consultation_id']}:{user_id}"):
        stored = plain_flask.db.session.get(plain_flask.IdempotencyKey, (user_id, key))
        active = plain_flask.find_active(wanted["consultation_id"])
        if active is not None and stored is None:
            return plain_flask.conflict(active)
        return plain_flask.create_once(wanted, key)


@contextmanager
def lock(name: str) -> Iterator[None]:
    owner = uuid.uuid4().hex
    for _ in range(MAX_ATTEMPTS):
        if store.set(name, owner, nx=True, px=LEASE_MS):
            break
        time.sleep(RETRY_SECONDS)
    else:
        abort(409)
    try:
        yield
    finally:
        release(keys=[name], args=[owner])
