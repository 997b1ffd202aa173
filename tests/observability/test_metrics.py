"""What is counted, and that alerts, dashboard and document speak of nothing else."""

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from payments_app import clock
from payments_app.db.transaction import write_transaction
from payments_app.health import backlog_metrics
from payments_app.health.backlog_metrics import Backlog
from payments_app.observability import metrics
from payments_app.payments.models.refund import LEASED_TO_PEOPLE
from payments_app.payments.repository import get_for_update
from tests.gateway_webhooks import send
from tests.support.apps import app_with, engine_of
from tests.support.client import client_of
from tests.support.databases import ROOT
from tests.support.fake_stripe_state import Wire
from tests.support.people import People
from tests.support.raw_rows import Raw
from tests.support.rows import Rows
from tests.support.statements import statements_sent
from tests.support.stripe_apps import StripeApp, pay_by_card, refund
from tests.support.waiting import PATIENCE_SECONDS

Rise = Callable[..., float]


@pytest.fixture
def rise() -> Rise:
    """By how much a number has risen since it was first asked for; the numbers are the process's."""
    before: dict[str, float] = {}

    def by(name: str, **labels: str) -> float:
        now = REGISTRY.get_sample_value(name, labels) or 0.0
        return now - before.setdefault(f"{name}{labels}", now)

    return by


def shown(app: Flask) -> str:
    answer = client_of(app).get("/metrics")
    assert answer.status_code == 200
    return answer.text


def exported() -> dict[str, str]:
    """The names and types of our metrics, as Prometheus knows them."""
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase) and metric._labelnames:
            metric.labels(*metric._labelnames)  # with labels, a metric is exported from its first use on
    with app_with("postgresql+psycopg://nobody@127.0.0.1:1/nothing") as app:
        told = re.findall(r"^# TYPE (payments_\w+) (\w+)$", shown(app), re.MULTILINE)
    # prometheus_client also tells when each counter was made.
    return {name: kind for name, kind in told if not name.endswith("_created")} | {
        "payments_refunds_open": "gauge",
        "payments_refunds_to_be_sent": "gauge",
        "payments_refunds_to_be_sent_oldest_seconds": "gauge",
        "payments_refunds_requested": "gauge",
        "payments_refunds_requested_oldest_seconds": "gauge",
        "payments_in_review": "gauge",
        "payments_disputes_open": "gauge",
        "payments_webhook_attempts_total": "counter",
        "payments_webhook_oldest_unsent_seconds": "gauge",
        "payments_webhook_endpoints_failing": "gauge",
        "payments_webhook_endpoints_disabled": "gauge",
    }


def test_requests_are_counted_by_route_and_strangers_make_no_labels(people: People, rise: Rise) -> None:
    asked = "payments_http_requests_total"
    shown_payment = {"route": "/api/v1/payments/<id:payment_id>", "method": "GET", "status": "404"}
    nowhere = {"route": "unknown", "method": "unknown", "status": "404"}
    not_so = {"route": "unknown", "method": "unknown", "status": "405"}
    for labels in (shown_payment, nowhere, not_so):
        rise(asked, **labels)
    rise("payments_http_request_duration_seconds_count", route=shown_payment["route"], method="GET")

    for number in range(1, 6):
        people.patient.get(f"/payments/{number}000")
        people.patient.get(f"/{number}")
        people.patient.send(f"METHOD{number}", "/payments")

    assert [rise(asked, **labels) for labels in (shown_payment, nowhere, not_so)] == [5, 5, 5]
    assert rise("payments_http_request_duration_seconds_count", route=shown_payment["route"], method="GET") == 5
    assert "METHOD1" not in shown(people.app)


def test_payments_and_what_stopped_their_duplicates_are_counted(people: People, rise: Rise) -> None:
    def counts() -> list[float]:
        stopped = [rise("payments_duplicates_stopped_total", layer=layer) for layer in ("key", "lock", "index")]
        return [rise("payments_created_total", method="gcash"), *stopped]

    assert counts() == [0, 0, 0, 0]
    for consultation in (5, 6):
        people.patient.pay(consultation, key=f"k{consultation}", payment_method="gcash")
    for _ in range(3):
        people.patient.pay(5, key="k5", payment_method="gcash")
    people.patient.pay(5, key="another", payment_method="gcash")

    assert counts() == [2, 3, 0, 1]


def test_version_conflicts_are_counted_by_how_they_were_seen(people: People, rise: Rise) -> None:
    def counts() -> list[float]:
        return [rise("payments_version_conflicts_total", cause=cause) for cause in ("expectation", "race")]

    payment_id = people.patient.pay(5).json["data"]["payment_id"]
    assert counts() == [0, 0]
    people.patient.confirm(payment_id, expected_version=7)
    people.patient.send("POST", f"/payments/{payment_id}/confirm", {"If-Match": '"7"'}, json={"transaction_id": "T"})

    assert counts() == [2, 0]


def test_a_race_that_is_lost_is_counted_however_it_ends(people: People, rows: Rows, rise: Rise) -> None:
    payment_id = people.patient.pay(5).json["data"]["payment_id"]
    rise("payments_version_conflicts_total", cause="race")
    attempts = []

    @write_transaction
    def overtaken_once(session: Session) -> None:
        payment = get_for_update(session, payment_id)
        attempts.append(payment.version)
        if len(attempts) == 1:  # somebody else's change, seen too late
            session.connection().exec_driver_sql(f"UPDATE payments SET version = version + 1 WHERE id = {payment_id}")
        payment.needs_review = True

    with people.app.app_context():
        overtaken_once()

    assert rise("payments_version_conflicts_total", cause="race") == 1
    assert rows.one("SELECT needs_review, version FROM payments") == {"needs_review": True, "version": 1}


def test_refunds_and_webhooks_are_counted_by_outcome(stripe_app: StripeApp, rise: Rise) -> None:
    def counts() -> list[float]:
        outcomes = ("requested", "succeeded", "failed", "unknown")
        refunds = [rise("payments_refunds_total", outcome=outcome) for outcome in outcomes]
        return [*refunds, rise("payments_webhook_events_total", outcome="refused")]

    payment_id = pay_by_card(stripe_app.people, stripe_app.fake, 5)
    assert counts() == [0, 0, 0, 0, 0]
    for amount, trouble in ((1000, None), (1001, "refuse"), (1002, "drop")):
        if trouble:
            stripe_app.fake.misbehave(trouble)  # type: ignore[arg-type]  # both are ways in which it can
        refund(stripe_app.people.admin, payment_id, amount=amount)
    stripe_app.people.anonymous().post("/api/v1/webhooks/stripe", data=b"{}")

    assert counts() == [3, 1, 1, 1, 1]


def test_what_becomes_of_signed_events_is_counted(stripe_app: StripeApp, rise: Rise) -> None:
    outcomes = ("taken_in", "known", "unreadable", "other_mode")

    def counts() -> list[float]:
        return [rise("payments_webhook_events_total", outcome=outcome) for outcome in outcomes]

    # From the start: a number that begins at 1 has never risen, and would alert nobody.
    for outcome in ("unreadable", "other_mode"):
        assert REGISTRY.get_sample_value("payments_webhook_events_total", {"outcome": outcome}) is not None
    assert counts() == [0, 0, 0, 0]
    shapes: list[Wire] = [
        {"id": "evt_1", "type": "customer.created", "data": {"object": {"id": "cus_1"}}},
        {"id": "evt_2", "type": "payment_intent.succeeded", "data": None},
        {"id": "evt_2", "type": "payment_intent.succeeded", "data": None},
        {"id": "evt_3", "type": "v1.refund.failed", "related_object": {"id": "re_1"}},
        {"id": "evt_4", "type": "customer.created", "livemode": True},
    ]
    for shape in shapes:
        body = json.dumps(shape).encode()
        send(stripe_app.app, body, stripe_app.fake.sign(body))

    assert counts() == [1, 1, 2, 1]


def waiting(numbers: Backlog) -> dict[str, float]:
    return {family.name: family.samples[0].value for family in numbers.collect()}


def test_what_waits_is_read_from_the_database_and_then_kept_for_a_while(people: People, engine: Engine) -> None:
    raw, reviewed = Raw(engine), Raw(engine).payment(people.patient.id, 5, "completed", needs_review=True)
    raw.refund(reviewed, status="unknown")
    raw.refund(reviewed, status="pending")
    raw.refund(reviewed, status="pending", leased_until=clock.now() + timedelta(hours=1))
    raw.refund(reviewed, status="pending", by_hand=True, leased_until=LEASED_TO_PEOPLE)
    raw.refund(reviewed)
    for status in ("inquiry", "under_review", "lost", "won"):  # the bank has decided the last two
        raw.dispute(reviewed, status=status)
    now = clock.now()
    failing = raw.webhook_endpoint(failing_since=now, attempts_delivered=5)
    raw.webhook_endpoint(disabled_at=now, disabled_reason="gone", attempts_delivered=1)
    for ended in ({"disabled_reason": "by_hand", "disabled_at": now}, {"deleted_at": now, "attempts_delivered": 1}):
        raw.webhook_delivery(raw.webhook_endpoint(**ended))
    raw.webhook_delivery(failing, created_at=now - timedelta(seconds=60))
    numbers = Backlog()

    with people.app.app_context():
        first = waiting(numbers)
        first["payments_webhook_oldest_unsent_seconds"] -= first["payments_webhook_oldest_unsent_seconds"] % 60
        raw.refund(reviewed, status="unknown")
        raw.refund(reviewed, status="requested")
        with statements_sent(engine) as sent:
            assert waiting(numbers).items() >= {"payments_refunds_open": 2}.items()
        later = waiting(Backlog())

    assert first.pop("payments_refunds_to_be_sent_oldest_seconds") > 0
    # One of the open ones is in somebody's hands.
    assert first == {
        "payments_database_up": 1,
        "payments_refunds_open": 2,
        "payments_refunds_to_be_sent": 1,
        "payments_refunds_requested": 0,
        "payments_refunds_requested_oldest_seconds": 0,
        "payments_in_review": 1,
        "payments_disputes_open": 2,
        "payments_webhook_attempts": 7,
        "payments_webhook_oldest_unsent_seconds": 60,
        "payments_webhook_endpoints_failing": 1,
        "payments_webhook_endpoints_disabled": 1,
    }
    assert sent == []
    assert later["payments_refunds_open"] == 3
    assert later["payments_refunds_requested"] == 1
    assert later["payments_refunds_requested_oldest_seconds"] > 0


def test_without_a_database_the_rest_is_told_all_the_same() -> None:
    with app_with("postgresql+psycopg://nobody@127.0.0.1:1/nothing") as app:
        told = shown(app)

    assert "\npayments_database_up 0.0\n" in told
    assert "payments_http_requests_total" in told
    assert "payments_refunds_open" not in told  # an old number, or 0, would look like a good one


def test_connections_in_use_are_counted(engine: Engine, rise: Rise) -> None:
    rise("payments_db_connections_in_use")
    with engine.connect(), engine.connect():
        assert rise("payments_db_connections_in_use") == 2
    assert rise("payments_db_connections_in_use") == 0
    assert (REGISTRY.get_sample_value("payments_db_connections_max") or 0) >= 12


def test_connections_that_could_not_be_opened_again_are_not_counted(rise: Rise, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    rise("payments_db_connections_in_use")
    with app_with(f"sqlite:///{folder}/payments.db") as app:
        with engine_of(app).connect() as connection:
            connection.invalidate()
        folder.rename(tmp_path / "elsewhere")
        for _ in range(3):
            with pytest.raises(OperationalError):
                engine_of(app).connect()

    assert rise("payments_db_connections_in_use") == 0


def test_a_question_that_hangs_costs_another_scrape_these_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_metrics, "WAIT_SECONDS", 0.01)
    asking, answered = threading.Event(), threading.Event()

    def hang() -> None:
        asking.set()
        assert answered.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(backlog_metrics, "_count", hang)
    numbers = Backlog()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(waiting, numbers)
        assert asking.wait(PATIENCE_SECONDS)
        second = waiting(numbers)
        answered.set()
        first.result(PATIENCE_SECONDS)

    assert second == {"payments_database_up": 0}


def named_in(text: str) -> set[str]:
    return set(re.findall(r"\bpayments_[a-z_]+[a-z]\b", text))


def test_alerts_and_dashboard_name_only_what_the_app_exports_and_the_document_names_all() -> None:
    families = exported()
    samples = set(families)
    for name, kind in families.items():
        if kind == "histogram":
            samples |= {f"{name}_bucket", f"{name}_count", f"{name}_sum"}
    alerts = (ROOT / "deploy/prometheus/alerts.yml").read_text()
    cases = (ROOT / "deploy/prometheus/alerts_test.yml").read_text()
    dashboard = json.loads((ROOT / "deploy/grafana/payments.json").read_text())
    queries = "\n".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])

    assert named_in(alerts) - samples == set()
    assert named_in(cases) - samples == set()
    assert named_in(queries) - samples == set()
    assert len(named_in(alerts)) >= 10
    described = re.findall(r"^\| `(payments_\w+)`", (ROOT / "docs/observability.md").read_text(), re.MULTILINE)
    assert sorted(described) == sorted(families)
