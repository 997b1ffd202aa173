"""What was committed is told to each endpoint at least once, in order, whatever the endpoints do."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text
from standardwebhooks.webhooks import WebhookVerificationError

from payments_app import clock
from payments_app.db import transaction
from payments_app.webhook_endpoints import deliveries
from payments_app.webhook_endpoints import sender as sender_module
from payments_app.webhook_endpoints.deliveries import Lane
from payments_app.webhook_endpoints.models import ATTEMPTS_AFTER_SECONDS
from payments_app.webhook_endpoints.sender import Sender
from tests.support.dialects import on_postgresql
from tests.support.feeds import read_all
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from tests.webhook_endpoints.conftest import Webhooks


def pay(webhooks: Webhooks, *consultation_ids: int) -> None:
    for consultation_id in consultation_ids:
        assert webhooks.people.patient.pay(consultation_id).status_code == 201


def test_each_event_is_sent_once_to_each_endpoint_as_the_feed_has_it(webhooks: Webhooks) -> None:
    pay(webhooks, 1)  # which has its position before there is an endpoint
    assert len(read_all(webhooks.people.admin)) == 1
    _, secret = webhooks.endpoint("/all/ok")
    _, other_secret = webhooks.endpoint("/some/ok", types=["payment.completed"])
    pay(webhooks, 2, 3)
    payment_id = webhooks.rows.one("SELECT max(id) AS id FROM payments")["id"]
    webhooks.people.patient.confirm(payment_id)

    assert webhooks.send() == {"delivered": 4}
    assert webhooks.send() == {}

    feed = read_all(webhooks.people.admin)[1:]
    received = webhooks.receiver.at("/all/ok")
    assert [each.verify(secret) for each in received] == feed
    assert [each.verify(other_secret) for each in webhooks.receiver.at("/some/ok")] == feed[-1:]
    assert len({each.id for each in received}) == len(feed) == 3
    assert {each.id for each in webhooks.receiver.at("/some/ok")} <= {each.id for each in received}
    with pytest.raises(WebhookVerificationError):
        received[0].verify(other_secret)


def test_a_retry_is_the_same_bytes_and_holds_back_nothing(webhooks: Webhooks) -> None:
    endpoint_id, secret = webhooks.endpoint("/a/ok")
    webhooks.receiver.instead["/a/ok"] = "500"
    pay(webhooks, 1)
    assert webhooks.send() == {"failed": 1}
    del webhooks.receiver.instead["/a/ok"]
    pay(webhooks, 2)
    assert webhooks.send() == {"delivered": 1}
    assert webhooks.statuses(endpoint_id) == ["pending", "delivered"]
    webhooks.let_retries_be_due()
    assert webhooks.send() == {"delivered": 1}

    first, second, again = webhooks.receiver.at("/a/ok")
    assert (first.body, first.id) == (again.body, again.id)
    assert first.id != second.id
    assert first.headers["webhook-signature"] is not None
    again.verify(secret)
    assert webhooks.statuses(endpoint_id) == ["delivered", "delivered"]


def test_it_is_given_up_after_the_last_attempt_and_sent_again_by_hand(webhooks: Webhooks) -> None:
    endpoint_id, _ = webhooks.endpoint("/a/503")
    pay(webhooks, 1)
    pauses = []
    for _ in ATTEMPTS_AFTER_SECONDS:
        assert webhooks.send() == {"failed": 1}
        (row,) = webhooks.people.admin.get(f"/webhook-endpoints/{endpoint_id}/deliveries").json["data"]
        pauses.append(row["next_attempt_at"])
        webhooks.let_retries_be_due()
    assert webhooks.send() == {}
    assert (row["status"], row["attempts"], row["last_status_code"], row["last_error"]) == (
        "failed",
        10,
        503,
        "refused",
    )
    assert pauses[-1] is None
    assert None not in pauses[:-1]

    webhooks.receiver.instead["/a/503"] = "ok"
    path = f"/webhook-endpoints/{endpoint_id}/deliveries/{row['id']}/retry"
    for status in ("pending", "delivered"):  # a delivered one too
        assert webhooks.people.admin.send("POST", path).json["data"]["status"] == "pending", status
        assert webhooks.send() == {"delivered": 1}
    assert webhooks.statuses(endpoint_id) == ["delivered"]
    assert len(webhooks.receiver.at("/a/503")) == 12


def test_pauses_are_those_of_the_schedule(webhooks: Webhooks) -> None:
    endpoint_id, _ = webhooks.endpoint("/a/500")
    pay(webhooks, 1)
    wanted = ATTEMPTS_AFTER_SECONDS[1:]
    for pause in wanted:
        webhooks.send()
        (row,) = webhooks.deliveries(endpoint_id)
        assert as_time(row["next_attempt_at"]) - as_time(row["last_attempt_at"]) == timedelta(seconds=pause)
        assert webhooks.send() == {}  # not yet
        webhooks.let_retries_be_due()


def as_time(value: object) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))


def test_410_disables_an_endpoint(webhooks: Webhooks) -> None:
    endpoint_id, _ = webhooks.endpoint("/a/410")
    pay(webhooks, 1, 2)
    assert webhooks.send() == {"failed": 1}

    shown = webhooks.shown(endpoint_id)
    assert (shown["is_enabled"], shown["disabled_reason"]) == (False, "gone")
    given_up, other = webhooks.deliveries(endpoint_id)
    assert (given_up["status"], given_up["last_status_code"], given_up["last_error"]) == ("failed", 410, "gone")
    assert (other["status"], other["last_status_code"], other["last_error"]) == ("failed", None, "endpoint_disabled")
    assert webhooks.send() == {}


def test_nothing_taken_for_five_days_disables_an_endpoint(webhooks: Webhooks) -> None:
    endpoint_id, _ = webhooks.endpoint("/a/500")
    pay(webhooks, 1)
    webhooks.send()
    assert webhooks.shown(endpoint_id)["failing_since"] is not None
    now = clock.now()
    of_endpoint = "UPDATE webhook_endpoints SET failing_since = :since, last_failed_at = :last"

    def fail(since: timedelta, last: timedelta) -> object:
        webhooks.rows.execute(
            of_endpoint, since=webhooks.rows.moment(now - since), last=webhooks.rows.moment(now - last)
        )
        webhooks.let_retries_be_due()
        assert webhooks.send() == {"failed": 1}
        return webhooks.shown(endpoint_id)["disabled_reason"]

    assert fail(timedelta(days=4, hours=23), timedelta(hours=10)) is None
    # The failures of another event, long ago: or a clock that has jumped by a month.
    assert fail(timedelta(days=30), timedelta(days=30)) is None
    assert fail(timedelta(days=5, hours=1), timedelta(hours=10)) == "failing"
    assert webhooks.statuses(endpoint_id) == ["failed"]
    assert webhooks.deliveries(endpoint_id)[0]["last_error"] == "endpoint_disabled"
    with webhooks.app.app_context():
        assert deliveries.find_behind() == []


def test_an_endpoint_hears_only_while_it_is_enabled(webhooks: Webhooks) -> None:
    endpoint_id, _ = webhooks.endpoint("/a/ok", is_enabled=False)
    path, admin = f"/webhook-endpoints/{endpoint_id}", webhooks.people.admin
    pay(webhooks, 1)
    webhooks.send()
    read_all(admin)  # gives positions: without an endpoint that hears, the sender did so too
    admin.send("PATCH", path, json={"is_enabled": True})
    pay(webhooks, 2)
    webhooks.send()
    pay(webhooks, 3)
    admin.send("PATCH", path, json={"url": webhooks.receiver.url("/b/ok"), "types": ["payment.created"]})
    webhooks.send()
    webhooks.receiver.instead["/b/ok"] = "500"
    pay(webhooks, 4)
    webhooks.send()
    admin.send("PATCH", path, json={"is_enabled": False})
    assert webhooks.statuses(endpoint_id) == ["delivered", "delivered", "failed"]
    admin.send("PATCH", path, json={"is_enabled": True})
    webhooks.let_retries_be_due()
    pay(webhooks, 5)
    webhooks.receiver.instead.clear()
    webhooks.send()

    assert webhooks.positions_at("/a/ok") == [2]
    assert webhooks.positions_at("/b/ok") == [3, 4, 5]
    admin.send("DELETE", path)
    pay(webhooks, 6)
    assert webhooks.send() == {}
    assert webhooks.rows.count("webhook_deliveries") == 0


def test_a_ping_goes_out_before_events_and_has_no_position(webhooks: Webhooks) -> None:
    endpoint_id, secret = webhooks.endpoint("/a/ok", types=["payment.completed"])
    assert webhooks.people.admin.send("POST", f"/webhook-endpoints/{endpoint_id}/ping").status_code == 202
    assert webhooks.send() == {"delivered": 1}
    (ping,) = webhooks.receiver.at("/a/ok")
    assert list(ping.verify(secret)) == ["type", "created_at", "data"]
    assert (ping.event["type"], ping.event["data"]) == ("ping", {"webhook_endpoint_id": endpoint_id})
    (shown,) = webhooks.people.admin.get(f"/webhook-endpoints/{endpoint_id}/deliveries").json["data"]
    assert (shown["type"], shown["position"], shown["webhook_id"]) == ("ping", None, ping.id)
    assert read_all(webhooks.people.admin) == []


def test_while_a_secret_is_replaced_both_sign(webhooks: Webhooks) -> None:
    endpoint_id, old = webhooks.endpoint("/a/ok")
    path = f"/webhook-endpoints/{endpoint_id}/rotate-secret"
    new = webhooks.people.admin.post(path, {}).json["data"]["secret"]
    pay(webhooks, 1)
    webhooks.send()
    newest = webhooks.people.admin.post(path, {"overlap": 0}).json["data"]["secret"]
    pay(webhooks, 2)
    webhooks.send()

    both, one = webhooks.receiver.at("/a/ok")
    assert both.verify(old) == both.verify(new)
    one.verify(newest)
    for ended in (old, new):
        with pytest.raises(WebhookVerificationError):
            one.verify(ended)


def test_a_recorded_or_changed_webhook_is_refused(webhooks: Webhooks) -> None:
    _, secret = webhooks.endpoint("/a/ok")
    pay(webhooks, 1)
    webhooks.send()
    (sent,) = webhooks.receiver.at("/a/ok")
    sent.verify(secret)
    old = replace(
        sent, headers={**sent.headers, "webhook-timestamp": str(int(sent.headers["webhook-timestamp"]) - 301)}
    )
    other = replace(sent, headers={**sent.headers, "webhook-id": f"{sent.id}1"})
    for forged in (old, other, replace(sent, body=sent.body.replace(b'"pending"', b'"completed"'))):
        assert forged != sent
        with pytest.raises(WebhookVerificationError):
            forged.verify(secret)


@on_postgresql
def test_many_that_hang_keep_no_other_waiting(webhooks: Webhooks) -> None:
    """Forty endpoints hang: another gets all its events before any of those has ended one attempt."""
    for number in range(40):
        webhooks.endpoint(f"/{number}/hang")
    webhooks.endpoint("/good/ok")
    pay(webhooks, *range(1, 11))
    sender = Sender(webhooks.app)

    def run() -> None:
        with webhooks.app.app_context():
            sender.run()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: len(webhooks.receiver.at("/good/ok")) == 10)
        assert sender.counts["failed"] == 0
    finally:
        sender.stop()
        webhooks.receiver.released.set()
        thread.join()
    assert webhooks.positions_at("/good/ok") == list(range(1, 11))
    hung = [each for each in webhooks.receiver.received if each.path.endswith("/hang")]
    assert len(hung) <= 40  # one at a time to each
    assert {each.event["position"] for each in hung} <= {1}


def test_two_senders_send_each_event_once(webhooks: Webhooks) -> None:
    for number in range(3):
        webhooks.endpoint(f"/{number}/ok")
    pay(webhooks, *range(1, 13))
    senders = [Sender(webhooks.app) for _ in range(2)]

    def run(sender: Sender) -> None:
        with webhooks.app.app_context():
            sender.run()

    threads = [threading.Thread(target=run, args=(sender,)) for sender in senders]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(webhooks.receiver.received) >= 36)
        pay(webhooks, *range(13, 19))
        wait_until(lambda: webhooks.rows.count("webhook_deliveries", "status = 'delivered'") == 54)
    finally:
        for sender in senders:
            sender.stop()
        for thread in threads:
            thread.join()
    for number in range(3):
        assert webhooks.positions_at(f"/{number}/ok") == list(range(1, 19))


def test_what_was_delivered_is_written_down_however_long_the_database_is_busy(
    webhooks: Webhooks, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise it would be sent again, although its answer was heard."""
    monkeypatch.setattr(transaction, "LOCK_PATIENCE_SECONDS", 0)
    monkeypatch.setattr(sender_module, "PAUSE_AFTER_ERROR_SECONDS", 0.05)
    endpoint_id, _ = webhooks.endpoint("/a/wait")
    pay(webhooks, 1)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(webhooks.send)
        wait_until(lambda: len(webhooks.receiver.at("/a/wait")) == 1)
        with engine.begin() as busy:
            busy.execute(text("UPDATE webhook_endpoints SET description = 'busy'"))
            webhooks.receiver.released.set()
            wait_until(lambda: caplog.text.count("settle_success waits for a lock") >= 2)  # the second time it asks
        assert sent.result(PATIENCE_SECONDS) == {"delivered": 1}

    assert webhooks.statuses(endpoint_id) == ["delivered"]
    assert webhooks.send() == {}
    assert len(webhooks.receiver.received) == 1


def test_leases_and_pauses_survive_a_clock_that_jumps_back(webhooks: Webhooks) -> None:
    endpoint_id, _ = webhooks.endpoint("/a/ok")
    webhooks.receiver.instead["/a/ok"] = "500"
    pay(webhooks, 1)
    webhooks.send()
    webhooks.receiver.instead.clear()
    with webhooks.app.app_context():
        assert deliveries.lease(Lane(endpoint_id, is_first=False, is_failing=True), None, at_most=1, due_at=None) == []
    in_a_year = webhooks.rows.moment(clock.now() + timedelta(days=365))
    webhooks.rows.execute("UPDATE webhook_deliveries SET next_attempt_at = :at, leased_until = :at", at=in_a_year)

    assert webhooks.send() == {"delivered": 1}


def test_old_deliveries_are_deleted(webhooks: Webhooks) -> None:
    endpoint_id, _ = webhooks.endpoint("/a/ok")
    pay(webhooks, 1, 2, 3)
    webhooks.send()
    for days, position in ((31, 1), (29, 2)):
        webhooks.rows.execute(
            "UPDATE webhook_deliveries SET delivered_at = :at WHERE position = :position",
            at=webhooks.rows.moment(clock.now() - timedelta(days=days)),
            position=position,
        )
    webhooks.rows.execute(
        "UPDATE webhook_deliveries SET status = 'failed', delivered_at = NULL, created_at = :at WHERE position = 3",
        at=webhooks.rows.moment(clock.now() - timedelta(days=90)),
    )
    webhooks.send()
    assert [row["position"] for row in webhooks.deliveries(endpoint_id)] == [2, 3]
