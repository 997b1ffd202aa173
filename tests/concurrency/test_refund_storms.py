"""Refunds that race one another, their twins and everything else: no more goes back than came, and all of it can."""

from collections.abc import Iterator

import pytest
import requests

from tests.support.databases import Database
from tests.support.dialects import long_on_sqlite
from tests.support.fake_stripe import FakeStripe
from tests.support.fake_stripe_state import Wire
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.service import Service, at_once, statuses
from tests.support.stripe_apps import fake_stripe, stripe_settings

RACERS = 20
PAID_MINOR = 500_000
# 30 %: three of them fit, and a fourth does not.
PART, PART_MINOR, THAT_FIT = 1500, 150_000, 3


pytestmark = pytest.mark.usefixtures("audited")


def paid(people: People, consultation: int = 5) -> int:
    payment_id: int = people.patient.pay(consultation).json["data"]["payment_id"]
    assert people.patient.confirm(payment_id, f"TXN-{consultation}").status_code == 200
    return payment_id


def refund(service: Service, people: People, payment_id: int, key: str, amount: int | None = PART) -> requests.Response:
    return service.post(people.admin, f"/payments/{payment_id}/refund", {"amount": amount}, **{"Idempotency-Key": key})


def race(service: Service, people: People, payment_id: int, name: str, amount: int | None = PART) -> dict[str, int]:
    """Twenty at once with a key each; how often each key was answered with which status."""
    keys = [f"{name}-{number}" for number in range(RACERS)]
    answers = at_once([lambda k=k: refund(service, people, payment_id, k, amount) for k in keys])  # type: ignore[misc]
    assert set(statuses(answers)) <= {200, 409, 422, 503}
    for answer in answers:
        if answer.status_code == 503:  # by card, more than have a place at the gateway
            assert answer.json()["type"].endswith("/gateway-busy")
        if answer.status_code == 409:  # lost too many races, or the wait for a lease: worth another attempt
            assert answer.json()["type"].rpartition("/")[2] in ("version-conflict", "lock-timeout")
            assert answer.json()["retryable"] is True
        if answer.status_code == 422:
            assert answer.json()["type"].endswith("/refund-exceeds-balance")
    return {key: answer.status_code for key, answer in zip(keys, answers, strict=True)}


def books(rows: Rows, payment_id: int) -> dict[str, int]:
    """What the payment says, beside what its refunds say."""
    return {
        **rows.one(
            "SELECT refunded_minor, refund_reserved_minor AS reserved_minor FROM payments WHERE id = :id", id=payment_id
        ),
        **rows.one(
            "SELECT CAST(coalesce(sum(amount_minor), 0) AS BIGINT) AS rows_minor, count(*) AS refunds FROM refunds "
            "WHERE payment_id = :id AND status = 'succeeded'",
            id=payment_id,
        ),
    }


def returned(number: int) -> dict[str, int]:
    total_minor = number * PART_MINOR
    return {"refunded_minor": total_minor, "reserved_minor": 0, "rows_minor": total_minor, "refunds": number}


def test_of_twenty_refunds_of_thirty_percent_no_more_than_three_succeed_and_after_retries_three(
    service: Service, people: People, rows: Rows
) -> None:
    payment_id = paid(people)

    answered = race(service, people, payment_id, "first")

    succeeded = [key for key, status in answered.items() if status == 200]
    assert 1 <= len(succeeded) <= THAT_FIT
    assert books(rows, payment_id) == returned(len(succeeded))
    assert rows.count("refunds") == rows.count("idempotency_keys", "operation = 'refund'") == len(succeeded)

    # Whoever was told to try again does, with a new key: at once, and then one after the other.
    answered = {**answered, **race(service, people, payment_id, "second")}
    for number in range(THAT_FIT):
        key = f"third-{number}"
        answered[key] = refund(service, people, payment_id, key).status_code

    assert list(answered.values()).count(200) == THAT_FIT
    assert refund(service, people, payment_id, "last").status_code == 422
    assert books(rows, payment_id) == returned(THAT_FIT)
    assert rows.one("SELECT status, version FROM payments") == {
        "status": "partially_refunded",
        "version": 1 + 2 * THAT_FIT,  # set aside, and returned
    }
    # The keys of those that succeeded still say so, and nothing is sent again.
    for key, status in answered.items():
        if status == 200:
            assert refund(service, people, payment_id, key).status_code == 200
    assert books(rows, payment_id) == returned(THAT_FIT)


def test_twenty_requests_with_one_key_are_one_refund(service: Service, people: People, rows: Rows) -> None:
    payment_id = paid(people)

    answers = at_once([lambda: refund(service, people, payment_id, "one-key")] * RACERS)

    # A twin that comes before the outcome is told that it is on its way.
    assert set(statuses(answers)) <= {200, 202}
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert len({answer.json()["data"]["refund"]["id"] for answer in answers}) == 1
    assert all("Retry-After" in answer.headers for answer in answers if answer.status_code == 202)
    assert refund(service, people, payment_id, "one-key").status_code == 200
    assert books(rows, payment_id) == returned(1)
    assert rows.count("refunds") == 1


def test_of_twenty_refunds_of_everything_one_succeeds_and_frees_the_consultation_once(
    service: Service, people: People, rows: Rows
) -> None:
    payment_id = paid(people)

    answers = at_once(
        [lambda n=n: refund(service, people, payment_id, f"all-{n}", None) for n in range(RACERS)]  # type: ignore[misc]
    )

    assert sum(answer.status_code == 200 for answer in answers) == 1
    assert {answer.status_code for answer in answers} <= {200, 409, 422}
    assert rows.one("SELECT status, refunded_minor, refund_reserved_minor FROM payments") == {
        "status": "refunded",
        "refunded_minor": PAID_MINOR,
        "refund_reserved_minor": 0,
    }
    assert rows.one("SELECT status FROM invoices") == {"status": "refunded"}
    assert people.patient.pay(5).status_code == 201


def test_one_key_on_two_payments_at_once_refunds_one(service: Service, people: People, rows: Rows) -> None:
    payment_ids = [paid(people, consultation) for consultation in (5, 6)]

    answers = at_once([lambda p=p: refund(service, people, p, "one-key") for p in payment_ids * 5])  # type: ignore[misc]

    told = statuses(answers)
    assert told.pop(422) == 5
    assert set(told) <= {200, 202}
    assert rows.count("refunds") == 1
    assert sum(books(rows, payment_id)["refunded_minor"] for payment_id in payment_ids) == PART_MINOR


def test_refunds_against_confirm_and_cancel_return_only_what_came(service: Service, people: People, rows: Rows) -> None:
    for consultation in range(1, 7):
        payment_id: int = people.patient.pay(consultation).json["data"]["payment_id"]
        path = f"/payments/{payment_id}"
        confirm = lambda path=path: service.post(people.patient, f"{path}/confirm", {"transaction_id": path})  # noqa: E731
        cancel = lambda path=path: service.post(people.patient, f"{path}/cancel", {})  # noqa: E731
        refunds = [lambda p=payment_id, n=n: refund(service, people, p, f"{p}-{n}", None) for n in range(4)]

        confirmed, cancelled, *answers = at_once([confirm, cancel, *refunds])

        # Either it was paid, and then perhaps refunded, but never cancelled; or the other way round.
        refunded = statuses(answers).get(200, 0)
        assert set(statuses(answers)) <= {200, 409, 422}
        assert sorted([confirmed.status_code, cancelled.status_code]) == [200, 409]
        assert refunded <= (confirmed.status_code == 200)
        kept = rows.one(
            "SELECT status, received_minor, refunded_minor, refund_reserved_minor FROM payments WHERE id = :id",
            id=payment_id,
        )
        assert kept == {
            "status": "cancelled" if cancelled.status_code == 200 else "refunded" if refunded else "completed",
            "received_minor": PAID_MINOR * (confirmed.status_code == 200),
            "refunded_minor": PAID_MINOR * refunded,
            "refund_reserved_minor": 0,
        }


# With a gateway that counts for itself


@pytest.fixture(scope="module")
def stripe() -> Iterator[FakeStripe]:
    with fake_stripe() as fake:
        yield fake


@pytest.fixture(scope="module")
def card_service(database: Database, stripe: FakeStripe) -> Iterator[Service]:
    settings = stripe_settings(stripe, GATEWAY_TIMEOUT="5", REFUND_LEASE="60")
    with Service.started(database.url, **settings) as service:
        yield service


def paid_by_card(service: Service, stripe: FakeStripe, people: People, consultation: int) -> tuple[int, str]:
    """A payment that was paid at Stripe and confirmed: its id, and the PaymentIntent's."""
    created = service.pay(people.patient, consultation, f"create-{consultation}")
    payment_id: int = created.json()["data"]["payment_id"]
    opened = service.post(people.patient, f"/payments/{payment_id}/checkout", {})
    intent: str = opened.json()["data"]["reference"]
    stripe.pay(intent)
    confirmed = service.post(people.patient, f"/payments/{payment_id}/confirm", {"transaction_id": intent})
    assert confirmed.status_code == 200
    return payment_id, intent


@long_on_sqlite
def test_what_stripe_has_returned_is_what_we_say_was_returned(
    card_service: Service, stripe: FakeStripe, people: People, rows: Rows
) -> None:
    stripe.reset()
    payment_id, intent = paid_by_card(card_service, stripe, people, 5)

    answered = race(card_service, people, payment_id, "first")
    at_once([lambda: refund(card_service, people, payment_id, "one-key")] * RACERS)
    for number in range(THAT_FIT):
        refund(card_service, people, payment_id, f"more-{number}")

    assert list(answered.values()).count(200) >= 1
    assert books(rows, payment_id) == returned(THAT_FIT)
    assert stripe.refunded_total(intent) == THAT_FIT * PART_MINOR
    # Each of ours is one of theirs, by both names.
    theirs = {(made["id"], int(made["metadata"]["refund_id"])) for made in stripe.refunds_of(intent)}
    assert theirs == {(row["reference"], row["id"]) for row in rows.all("SELECT id, reference FROM refunds")}


@long_on_sqlite
def test_a_dispute_against_refunds_lets_none_be_sent_after_it(
    card_service: Service, stripe: FakeStripe, people: People, rows: Rows
) -> None:
    """Each refund at Stripe was requested before the dispute was known, and is for staff; after it, none is sent."""
    stripe.reset()
    for consultation in range(1, 5):
        payment_id, intent = paid_by_card(card_service, stripe, people, consultation)
        dispute_id = stripe.dispute(intent)
        opened = stripe.dispute_event("created", dispute_id)
        ask = [lambda k=f"{consultation}-{n}", p=payment_id: refund(card_service, people, p, k) for n in range(5)]

        *answers, told, told_again = at_once([*ask, *[lambda: delivered(stripe, card_service, opened)] * 2])  # noqa: B023

        assert (told.status_code, told_again.status_code) == (200, 200)
        refused = [answer.json()["type"].rpartition("/")[2] for answer in answers if answer.status_code == 409]
        assert set(refused) <= {"payment-disputed", "version-conflict"}
        sent = stripe.refunds_of(intent)
        assert len(sent) == statuses(answers).get(200, 0) == books(rows, payment_id)["refunds"]
        trail = rows.all("SELECT event, version FROM payment_events WHERE payment_id = :id", id=payment_id)
        versions = {name: [row["version"] for row in trail if row["event"] == name] for name in EVENTS}
        (blocked_at,) = versions["refunds.blocked"]
        assert len(versions["dispute.needs_response"]) == 1
        assert all(version < blocked_at for version in versions["refund.requested"])
        assert len(versions["dispute.meets_refund"]) == bool(sent)

        stripe.move_dispute(dispute_id, "lost")
        lost = stripe.dispute_event("closed", dispute_id)
        *answers, told = at_once([*ask, lambda: delivered(stripe, card_service, lost)])  # noqa: B023
        late = refund(card_service, people, payment_id, f"{consultation}-late")

        assert told.status_code == 200
        assert late.json()["type"].endswith("/payment-disputed")
        assert stripe.refunds_of(intent) == sent
        kept = rows.one("SELECT is_disputed, needs_review FROM payments WHERE id = :id", id=payment_id)
        assert (bool(kept["is_disputed"]), bool(kept["needs_review"])) == (True, True)


def delivered(stripe: FakeStripe, service: Service, event: Wire) -> requests.Response:
    """Again until it is taken: it may have to be asked about while the refunds have all places."""
    answer = stripe.deliver(service.url, event)
    while answer.status_code == 503:
        answer = stripe.deliver(service.url, event)
    return answer


EVENTS = ("dispute.needs_response", "refunds.blocked", "refund.requested", "dispute.meets_refund")
