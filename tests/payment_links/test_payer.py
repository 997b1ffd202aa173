"""What somebody with a payment link may do: what their consultation needs, while the link and its patient stand."""

from collections.abc import Callable, Iterator

import pytest

from tests.api.assertions import assert_problem, nothing_written
from tests.support.apps import app_with, engine_of
from tests.support.client import ApiResponse
from tests.support.databases import Database
from tests.support.links import Payer, exchange, payer_of
from tests.support.people import People
from tests.support.redis_server import RedisServer
from tests.support.rows import Rows
from tests.support.statements import statements_sent

KEY = {"Idempotency-Key": "k"}


def test_a_payer_pays_the_consultation_as_the_patient(people: People, rows: Rows) -> None:
    payer = payer_of(people)

    made = payer.pay(5, key="k")
    payment_id = made.json["data"]["payment_id"]
    opened = payer.post(f"/payments/{payment_id}/checkout")
    cancelled = payer.post(f"/payments/{payment_id}/cancel", headers={"Idempotency-Key": "c"})

    assert [answer.status_code for answer in (made, opened, cancelled)] == [201, 200, 200]
    assert rows.one("SELECT user_id, status FROM payments") == {"user_id": people.patient.id, "status": "cancelled"}
    actors = {event["actor"] for event in payer.get(f"/payments/{payment_id}/events").json["data"]}
    assert actors == {f"payer:{payer.link_id}"}
    # The keys are the patient's, whichever way they come.
    assert people.patient.pay(5, key="k").data == made.data
    assert payer.get("/idempotency-keys/k").json["data"]["payment_id"] == payment_id


def test_a_payer_sees_their_consultation_and_nothing_else(people: People, rows: Rows) -> None:
    payer = payer_of(people)
    own = payer.pay(5, key="own").json["data"]["payment_id"]
    patients, others = people.patient.pay(6, key="patients"), people.other.pay(21, key="others")
    foreign = [answer.json["data"]["payment_id"] for answer in (patients, others)]

    me = payer.get("/me").json["data"]
    assert me == {"id": people.patient.id, "email": people.patient.email, "name": people.patient.email, "role": "payer"}
    assert [shown["id"] for shown in payer.get("/consultations").json["data"]] == [5]
    assert [shown["id"] for shown in payer.get("/payments").json["data"]] == [own]
    assert [shown["id"] for shown in payer.get("/payments?consultation_id=5").json["data"]] == [own]
    assert payer.get("/payments?consultation_id=6").json["data"] == []
    for path in ("/consultations/5", f"/payments/{own}", f"/payments/{own}/events", "/payment-methods"):
        assert payer.get(path).status_code == 200
    with nothing_written(rows):
        for consultation_id in (6, 21, 999):
            assert_problem(payer.get(f"/consultations/{consultation_id}"), 404, code="consultation-not-found")
            assert_problem(payer.pay(consultation_id), 404, code="consultation-not-found")
            # Nor is the answer to a key of the patient's to be had.
            assert_problem(payer.pay(consultation_id, key="patients"), 404, code="consultation-not-found")
        for payment_id in foreign:
            for path in ("", "/events"):
                assert_problem(payer.get(f"/payments/{payment_id}{path}"), 404, code="payment-not-found")
            for verb in ("checkout", "cancel"):
                refused = payer.post(f"/payments/{payment_id}/{verb}", headers={"Idempotency-Key": "patients"})
                assert_problem(refused, 404, code="payment-not-found")
        for key in ("patients", "others", "unknown"):
            assert_problem(payer.get(f"/idempotency-keys/{key}"), 404, code="idempotency-key-not-found")


def test_everything_else_is_forbidden(people: People, rows: Rows) -> None:
    payer = payer_of(people)
    payment_id = payer.pay(5).json["data"]["payment_id"]
    asks: list[tuple[str, str, object]] = [
        ("POST", f"/payments/{payment_id}/confirm", {"transaction_id": "TXN-1"}),
        ("POST", f"/payments/{payment_id}/refund", {}),
        ("PUT", "/consultations/5", {"patient_email": "other@example.com"}),
        ("POST", "/consultations/5/links", {}),
        ("GET", "/consultations/5/links", None),
        ("DELETE", payer.link_path, None),
    ]

    with nothing_written(rows):
        for method, path, body in asks:
            assert_problem(payer.send(method, path, json=body), 403, code="forbidden")


# Reads and writes of a payer whose payment was made with the key k, and cancelled with the key c.
ASKS: dict[str, Callable[[Payer, int], ApiResponse]] = {
    "me": lambda payer, _: payer.get("/me"),
    "methods": lambda payer, _: payer.get("/payment-methods"),
    "consultations": lambda payer, _: payer.get("/consultations"),
    "consultation": lambda payer, _: payer.get("/consultations/5"),
    "payments": lambda payer, _: payer.get("/payments"),
    "payment": lambda payer, number: payer.get(f"/payments/{number}"),
    "events": lambda payer, number: payer.get(f"/payments/{number}/events"),
    "key": lambda payer, _: payer.get("/idempotency-keys/k"),
    "replayed create": lambda payer, _: payer.pay(5, key="k"),
    "replayed cancel": lambda payer, number: payer.post(f"/payments/{number}/cancel", headers={"Idempotency-Key": "c"}),
    "create": lambda payer, _: payer.pay(5, key="new"),
    "checkout": lambda payer, number: payer.post(f"/payments/{number}/checkout"),
    "cancel": lambda payer, number: payer.post(f"/payments/{number}/cancel"),
    # Not theirs: but who has lost everything is not told so.
    "refund": lambda payer, number: payer.post(f"/payments/{number}/refund"),
    "another's": lambda payer, _: payer.get("/consultations/21"),
}


@pytest.fixture
def with_redis(database: Database, redis_server: RedisServer, people: People) -> Iterator[People]:
    """The people at the door of an app that has a Redis."""
    redis_server.client.flushall()
    with app_with(database.url, **redis_server.settings) as app:
        yield people.seen_by(app)


def paid_and_cancelled(payer: Payer) -> int:
    payment_id: int = payer.pay(5, key="k").json["data"]["payment_id"]
    assert payer.post(f"/payments/{payment_id}/cancel", headers={"Idempotency-Key": "c"}).status_code == 200
    return payment_id


def test_a_payer_is_told_nothing_once_link_or_patient_no_longer_stand(with_redis: People, rows: Rows) -> None:
    """Whatever Redis remembers. Each ending is undone, to see that it was that which stood in the way."""
    payer = payer_of(with_redis)
    payment_id = paid_and_cancelled(payer)
    patient = {"id": with_redis.patient.id}
    endings = {
        "revoked": ("UPDATE payment_links SET revoked_at = created_at", "UPDATE payment_links SET revoked_at = NULL"),
        "disabled": ("UPDATE users SET disabled_at = created_at WHERE id = :id", "UPDATE users SET disabled_at = NULL"),
        "logged out": ("UPDATE users SET token_version = 7 WHERE id = :id", "UPDATE users SET token_version = 0"),
    }
    for begin, end in endings.values():
        rows.execute(begin, **(patient if ":id" in begin else {}))
        with nothing_written(rows):
            for ask in ASKS.values():
                assert_problem(ask(payer, payment_id), 401, code="not-authenticated")
        rows.execute(end)

    replayed = [ASKS[name](payer, payment_id) for name in ("replayed create", "replayed cancel")]
    assert [(answer.status_code, answer.headers["Idempotent-Replayed"]) for answer in replayed] == [
        (201, "true"),
        (200, "true"),
    ]


def test_a_copy_in_redis_of_another_consultation_is_not_a_payers(with_redis: People) -> None:
    assert with_redis.patient.pay(6, key="k").status_code == 201
    payer = payer_of(with_redis)

    assert_problem(payer.pay(6, key="k"), 404, code="consultation-not-found")


def test_a_consultation_that_gets_another_patient_ends_the_links_of_the_first(people: People, rows: Rows) -> None:
    """Whoever has one would pay as the second patient, and read the second patient's name."""
    payer = payer_of(people)
    kept = payer_of(people)
    assert people.admin.put("/consultations/5", {"patient_id": people.patient.id, "fee": 5000}).status_code == 200
    assert kept.get("/consultations/5").status_code == 200
    assert people.admin.put("/consultations/5", {"patient_id": people.other.id}).status_code == 200

    with nothing_written(rows):
        assert_problem(payer.get("/consultations/5"), 401, code="not-authenticated")
        assert_problem(payer.pay(5), 401, code="not-authenticated")
        assert_problem(exchange(people, payer.link_token), 404, code="not-found")
    # Nor do they live again if the first patient comes back.
    assert people.admin.put("/consultations/5", {"patient_id": people.patient.id}).status_code == 200
    assert_problem(payer.get("/consultations/5"), 401, code="not-authenticated")
    assert people.admin.put("/consultations/5", {"patient_id": people.other.id}).status_code == 200
    second = payer_of(people, 5, of=people.other)
    assert second.pay(5).status_code == 201
    assert rows.one("SELECT user_id FROM payments")["user_id"] == people.other.id


def test_a_refused_change_of_the_patient_ends_no_link(people: People) -> None:
    payer = payer_of(people)
    assert payer.pay(5).status_code == 201

    refused = people.admin.put("/consultations/5", {"patient_id": people.other.id})

    assert_problem(refused, 409, code="consultation-has-payments")
    assert payer.get("/consultations/5").status_code == 200


def test_an_expired_link_reads_and_changes_nothing(people: People, rows: Rows) -> None:
    payer, unpaid = payer_of(people), payer_of(people, 6)
    payment_id = payer.pay(5, key="k").json["data"]["payment_id"]
    for one in (payer, unpaid):
        one.expire(rows)

    assert payer.get(f"/payments/{payment_id}").status_code == 200
    assert payer.get("/idempotency-keys/k").status_code == 200
    assert payer.get("/me").status_code == 200
    with nothing_written(rows):
        for refused in (
            payer.pay(5),
            payer.pay(5, key="k"),
            payer.post(f"/payments/{payment_id}/checkout"),
            payer.post(f"/payments/{payment_id}/cancel"),
        ):
            assert_problem(refused, 403, code="forbidden")
        for nothing_paid in (unpaid.get("/consultations/6"), unpaid.get("/me"), unpaid.pay(6)):
            assert_problem(nothing_paid, 401, code="not-authenticated")
    payer.expire(rows, days_ago=91)
    assert_problem(payer.get(f"/payments/{payment_id}"), 401, code="not-authenticated")


def test_two_payers_of_one_consultation_make_one_payment(people: People, rows: Rows) -> None:
    one, another = payer_of(people), payer_of(people)

    assert one.pay(5).status_code == 201
    duplicate = another.pay(5)

    assert_problem(duplicate, 409, code="active-payment-exists")
    assert rows.count("payments") == 1


READS = ("/payments", "/consultations", "/consultations/5", "/me", "/payment-methods")


@pytest.mark.parametrize("path", READS)
def test_a_read_asks_for_link_and_patient_in_one_statement(people: People, path: str) -> None:
    payer = payer_of(people)
    payer.pay(5)

    with statements_sent(engine_of(people.app)) as sent:
        assert payer.get(path).status_code == 200

    asked = [statement for statement, _ in sent if not statement.startswith("BEGIN")]
    assert "payment_links" in asked[0]
    assert "users" in asked[0]
    assert len(asked) == (1 if path == "/payment-methods" else 3 if path == "/me" else 2)
