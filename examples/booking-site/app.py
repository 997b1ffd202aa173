"""A booking site that is paid through the payments service. README.md says what it needs, and what it leaves out."""

import os
import secrets
import sqlite3
from contextlib import closing
from http import HTTPStatus
from typing import Any

import requests
from flask import Flask, abort, redirect, render_template, request
from standardwebhooks import Webhook, WebhookVerificationError

API, SITE, KEY = os.environ["PAYMENTS_URL"] + "/api/v1", os.environ["SITE_URL"], os.environ["PAYMENTS_KEY"]
WEBHOOK = Webhook(os.environ["WEBHOOK_SECRET"])
# What the type of a payment's last event, or else its status, means. The first of them speaks for the whole booking.
MEANINGS = {
    **dict.fromkeys(["refund.failed", "refund.reversed"], "refund failed"),
    **dict.fromkeys(["refund.requested", "refund.pending", "refund.unknown"], "refund under way"),
    "payment.quarantined": "paid too late: the clinic returns the money",
    "completed": "paid", "partially_refunded": "partly refunded", "refunded": "refunded",
    "processing": "payment under way", "pending": "payment begun",
}  # fmt: skip
app = Flask(__name__)


def query(sql: str, *values: Any) -> list[sqlite3.Row]:
    """One statement, committed at once. Everything here may be done twice, so nothing needs more."""
    with closing(sqlite3.connect(os.environ["BOOKINGS"])) as db, db:
        db.row_factory = sqlite3.Row
        return db.execute(sql, values).fetchall()


for table in (
    "bookings (id UNIQUE, name, what, amount, is_cancelled DEFAULT FALSE, refund_attempt DEFAULT 1)",
    "events (id, created_at, booking, payment, position, type, status, UNIQUE (id, created_at))",
    "feed (name UNIQUE, cursor)",
):
    query(f"CREATE TABLE IF NOT EXISTS {table}")


def call(method: str, path: str, key: str | None = None, **more: Any) -> Any:
    """One request to the service. It may call a gateway meanwhile, so it has a minute."""
    headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": key}
    response = requests.request(method, API + path, headers=headers, timeout=60, **more)
    response.raise_for_status()
    return response.json()


@app.errorhandler(requests.RequestException)
def tell(error: requests.RequestException) -> tuple[str, int]:
    is_problem = error.response is not None and "json" in error.response.headers.get("Content-Type", "")
    return render_template("refused.html", problem=error.response.json() if is_problem else {}), HTTPStatus.BAD_GATEWAY


def state_of(booking: sqlite3.Row, events: list[sqlite3.Row]) -> str:
    last = {event["payment"]: event for event in events}.values()
    found = {MEANINGS.get(event["type"], MEANINGS.get(event["status"])) for event in last}
    state = next((words for words in MEANINGS.values() if words in found), None)
    if booking["is_cancelled"]:
        return {None: "cancelled", "paid": "to be refunded", "partly refunded": "to be refunded"}.get(state, state)
    return state or "to be paid"


@app.get("/")
@app.get("/bookings/<int:booking_id>")
def show(booking_id: int | None = None) -> str:
    bookings = []
    for row in query("SELECT * FROM bookings WHERE id = coalesce(?, id) ORDER BY rowid DESC", booking_id):
        events = query("SELECT * FROM events WHERE booking = ? ORDER BY position", row["id"])
        bookings.append({**row, "events": events, "state": state_of(row, events)})
    if booking_id is not None and not bookings:
        abort(404)
    return render_template("bookings.html", bookings=bookings, is_one=booking_id is not None)


@app.post("/bookings")
def book() -> Any:
    """Registers first: if this site dies in between, nobody has a link by which to pay."""
    given, booking_id = request.form, secrets.randbits(40)
    body = {"patient": {"email": given["email"], "name": given["name"]}, "fee": given["amount"]}
    body |= {"description": given["what"], "reference": f"BK-{booking_id}"}
    call("PUT", f"/consultations/{booking_id}", json=body)
    row = (booking_id, given["name"], given["what"], given["amount"])
    query("INSERT INTO bookings (id, name, what, amount) VALUES (?, ?, ?, ?)", *row)
    return redirect(f"/bookings/{booking_id}", HTTPStatus.SEE_OTHER)


@app.post("/bookings/<int:booking_id>/pay")
def pay(booking_id: int) -> Any:
    """Makes a new link each time: all of them make one payment, and none has to be kept here."""
    link = call("POST", f"/consultations/{booking_id}/links", json={"return_url": f"{SITE}/bookings/{booking_id}"})
    return redirect(link["data"]["url"], HTTPStatus.SEE_OTHER)


@app.post("/bookings/<int:booking_id>/cancel")
def cancel(booking_id: int) -> Any:
    """Closes first, so that no money comes afterwards, and then returns what has come. It may be pressed again."""
    call("POST", f"/consultations/{booking_id}/close")
    [row] = query("UPDATE bookings SET is_cancelled = TRUE WHERE id = ? RETURNING refund_attempt", booking_id)
    for payment in call("GET", f"/payments?consultation_id={booking_id}")["data"]:
        if payment["status"] in ("completed", "partially_refunded"):
            try:  # the same key until the service says no: a lost answer never returns the money twice
                call("POST", f"/payments/{payment['id']}/refund", f"cancel-{payment['id']}-{row['refund_attempt']}")
            except requests.HTTPError as error:
                if error.response.status_code == HTTPStatus.PAYMENT_REQUIRED:  # declined, for good under this key
                    query("UPDATE bookings SET refund_attempt = refund_attempt + 1 WHERE id = ?", booking_id)
                raise
    return redirect(f"/bookings/{booking_id}", HTTPStatus.SEE_OTHER)


@app.post("/webhooks")
def hear() -> tuple[str, int]:
    try:
        take(WEBHOOK.verify(request.get_data(), dict(request.headers)))
    except (WebhookVerificationError, ValueError):  # ValueError: it does not even look like a signature
        return "not signed by the payments service", HTTPStatus.BAD_REQUEST
    return "", HTTPStatus.NO_CONTENT


def take(event: dict[str, Any]) -> None:
    """Its webhook-id is made of its id and time, by which this ignores repetitions: by webhooks, and by the feed."""
    if "position" in event:  # a ping has none
        data, row = event["data"], [event["id"], event["created_at"]]
        row += [data["consultation_id"], data["payment_id"], event["position"], event["type"], data["status"]]
        query("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", *row)


@app.post("/reconcile")
def reconcile() -> Any:
    """Reads the feed on from its cursor: whatever no webhook has told."""
    has_more = True
    while has_more:
        after = {row["name"]: row["cursor"] for row in query("SELECT * FROM feed")}
        try:
            page = call("GET", "/events", params={"limit": 1000, **after})
        except requests.HTTPError as error:
            if error.response.status_code != HTTPStatus.GONE:
                raise
            query("DELETE FROM feed")  # restored from a backup: other events may have these positions
            query("DELETE FROM events")
            continue
        for event in page["data"]:
            take(event)
        query("INSERT OR REPLACE INTO feed VALUES ('after', ?)", page["meta"]["next_cursor"])
        has_more = page["meta"]["has_more"]
    return redirect("/", HTTPStatus.SEE_OTHER)
