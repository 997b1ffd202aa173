"""Links as the booking system makes, lists and revokes them, and as their page opens them."""

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from payments_app import clock
from tests.api.assertions import assert_problem, nothing_written
from tests.support.apps import PRODUCTION, app_with
from tests.support.databases import Database
from tests.support.links import exchange, make_link, payer_of
from tests.support.people import People
from tests.support.rows import Rows

NO_LINK = 2**63 - 1


@pytest.fixture
def registered(people: People, rows: Rows) -> People:
    """Consultation 5 was registered by the booking system, consultation 6 by nobody who is known."""
    rows.execute("UPDATE consultations SET registered_by = :id WHERE id = 5", id=people.booking.id)
    return people


def test_a_link_is_made_and_its_token_is_kept_as_a_hash(registered: People, rows: Rows) -> None:
    answer = registered.booking.post("/consultations/5/links", {})

    assert answer.status_code == 201
    link = answer.json["data"]
    assert set(link) == {"id", "url", "expires_at"}
    base, _, token = link["url"].rpartition("/")
    assert base == "http://localhost/pay"
    assert len(token) == 43
    week = datetime.fromisoformat(link["expires_at"]) - clock.now()
    assert timedelta(days=7) - timedelta(minutes=1) < week <= timedelta(days=7)
    (row,) = rows.all("SELECT * FROM payment_links")
    assert row["token_hash"] == hashlib.sha256(token.encode()).hexdigest()
    assert (row["consultation_id"], row["created_by"], row["revoked_at"]) == (5, registered.booking.id, None)
    assert token not in str(row)


def test_a_link_is_opened_any_number_of_times(people: People) -> None:
    token = make_link(people).json["data"]["url"].rpartition("/")[2]

    first, second = exchange(people, token), exchange(people, token)

    for answer in (first, second):
        assert answer.status_code == 200
        assert set(answer.json) == {"token", "token_type", "expires_in"}
        assert (answer.json["token_type"], answer.json["expires_in"]) == ("Bearer", 900)
        assert answer.headers["Cache-Control"] == "no-store"


def test_unknown_revoked_expired_and_a_disabled_patients_are_the_same(people: People, rows: Rows) -> None:
    revoked, expired, disabled = (payer_of(people) for _ in range(3))
    assert revoked.revoke().status_code == 204
    expired.expire(rows)
    answers = [exchange(people, token) for token in ("unknown", revoked.link_token, expired.link_token)]
    rows.execute("UPDATE users SET disabled_at = created_at WHERE id = :id", id=people.patient.id)
    answers.append(exchange(people, disabled.link_token))

    for answer in answers:
        assert_problem(answer, 404, code="not-found")
    assert len({answer.json["detail"] for answer in answers}) == 1


@pytest.mark.parametrize(("days_ago", "is_paid", "status"), [(89, True, 200), (89, False, 404), (91, True, 404)])
def test_an_expired_link_shows_what_was_paid_for_ninety_days(
    people: People, rows: Rows, days_ago: int, *, is_paid: bool, status: int
) -> None:
    payer = payer_of(people)
    if is_paid:
        assert payer.pay(5).status_code == 201
    payer.expire(rows, days_ago=days_ago)

    answer = exchange(people, payer.link_token)

    assert answer.status_code == status
    if status == 200:
        headers = {"Authorization": f"Bearer {answer.json['token']}"}
        assert people.anonymous().get("/api/v1/consultations/5", headers=headers).status_code == 200


def test_a_list_shows_all_links_and_no_address(registered: People) -> None:
    made = [registered.booking.post("/consultations/5/links", {}).json["data"] for _ in range(3)]
    registered.admin.send("DELETE", f"/consultations/5/links/{made[0]['id']}")

    pages = [registered.booking.get("/consultations/5/links?per_page=2")]
    pages.append(registered.booking.get(f"/consultations/5/links?cursor={pages[0].json['meta']['next_cursor']}"))
    shown = [link for page in pages for link in page.json["data"]]

    assert [link["id"] for link in shown] == [link["id"] for link in reversed(made)]
    assert [link["revoked_at"] is None for link in shown] == [True, True, False]
    assert set(shown[0]) == {"id", "return_url", "created_at", "expires_at", "revoked_at"}
    assert not any(link["url"].rpartition("/")[2] in page.text for link in made for page in pages)
    # A cursor is one of the list of its consultation.
    stranger = registered.admin.get(f"/consultations/6/links?cursor={pages[0].json['meta']['next_cursor']}")
    assert_problem(stranger, 422, "cursor")


def test_revoking_again_changes_nothing(people: People, rows: Rows) -> None:
    payer = payer_of(people)
    assert payer.revoke().status_code == 204

    with nothing_written(rows):
        again = payer.revoke()
        unknown = people.admin.send("DELETE", f"/consultations/5/links/{NO_LINK}")
        of_another = people.admin.send("DELETE", f"/consultations/6/links/{payer.link_id}")

    assert (again.status_code, again.data) == (204, b"")
    assert_problem(unknown, 404, code="not-found")
    assert_problem(of_another, 404, code="not-found")


def test_the_booking_system_has_links_of_what_it_registered_alone(registered: People, rows: Rows) -> None:
    link_id = make_link(registered, 6).json["data"]["id"]
    asks: list[tuple[str, str, Any]] = [
        ("POST", "links", {}),
        ("GET", "links", None),
        ("DELETE", f"links/{link_id}", None),
    ]

    with nothing_written(rows):
        for method, path, body in asks:
            foreign = registered.booking.send(method, f"/consultations/6/{path}", json=body)
            missing = registered.booking.send(method, f"/consultations/999/{path}", json=body)
            patients = registered.patient.send(method, f"/consultations/6/{path}", json=body)
            assert_problem(foreign, 403, code="forbidden")
            assert_problem(missing, 404, code="consultation-not-found")
            assert_problem(patients, 403, code="forbidden")


def test_a_closed_consultation_gets_no_link(people: People, rows: Rows) -> None:
    rows.execute("UPDATE consultations SET closed_at = created_at WHERE id = 5")

    with nothing_written(rows):
        assert_problem(make_link(people), 409, code="consultation-closed")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"expires_in": 59}, "expires_in"),
    ({"expires_in": 30 * 86_400 + 1}, "expires_in"),
    ({"expires_in": "3600"}, "expires_in"),
    ({"expires_in": 60.5}, "expires_in"),
    ({"expires_in": True}, "expires_in"),
    ({"expires_in": None}, "expires_in"),
    ({"return_url": ""}, "return_url"),
    ({"return_url": "booking.example.org"}, "return_url"),
    ({"return_url": "/back"}, "return_url"),
    ({"return_url": "javascript:alert(1)"}, "return_url"),
    ({"return_url": "http://booking.example.org/"}, "return_url"),
    ({"return_url": "https://booking.example.org.evil.example/"}, "return_url"),
    ({"return_url": "https://booking.example.org:8443/"}, "return_url"),
    ({"return_url": "https://evil.example/https://booking.example.org"}, "return_url"),
    ({"return_url": "https://booking.example.org@evil.example/"}, "return_url"),
    ({"return_url": "https://user:secret@booking.example.org/"}, "return_url"),
    ({"return_url": "https://booking.example.org\\.evil.example/"}, "return_url"),
    ({"return_url": "https://booking.example.org\n/"}, "return_url"),
    ({"return_url": "http://localhost:3001/"}, "return_url"),
    ({"return_url": f"https://booking.example.org/{'a' * 2048}"}, "return_url"),
    ({"return_url": 5}, "return_url"),
    ({"token": "mine"}, "token"),
]


@pytest.fixture
def abroad(people: People, database: Database) -> Iterator[People]:
    settings = {
        "PUBLIC_URL": "https://pay.example.org",
        "RETURN_URL_ORIGINS": "https://booking.example.org,http://localhost:3000",
    }
    with app_with(database.url, **settings) as app:
        yield people.seen_by(app)


def test_what_is_no_lifetime_and_nowhere_to_lead_to_makes_no_link(abroad: People, rows: Rows) -> None:
    with nothing_written(rows):
        for members, field in REFUSED:
            assert_problem(make_link(abroad, **members), 422, field)


@pytest.mark.parametrize(
    "url", ["https://booking.example.org", "https://Booking.example.org:443/done?x=1#top", "http://localhost:3000/"]
)
def test_a_link_may_lead_on_to_a_site_that_is_listed(abroad: People, rows: Rows, url: str) -> None:
    answer = make_link(abroad, return_url=url, expires_in=60)

    assert answer.status_code == 201
    assert answer.json["data"]["url"].startswith("https://pay.example.org/pay/")
    assert rows.one("SELECT return_url FROM payment_links")["return_url"] == url


def test_what_is_no_token_is_not_exchanged(people: People) -> None:
    tokens: tuple[Any, ...] = (None, 5, True, [], {}, "", "a" * 256, "a\x00b", "a\ud800")
    for token in tokens:
        assert_problem(exchange(people, token), 422, "token")


def test_production_makes_links_by_its_setting_alone(people: People, rows: Rows, database: Database) -> None:
    with app_with(database.url, **PRODUCTION) as app:
        there = people.seen_by(app)
        there.admin.token = people.token_from(app, people.admin)
        with nothing_written(rows):
            answer = there.admin.post(
                "/consultations/5/links", {}, base_url="https://evil.example", headers={"Host": "evil.example"}
            )

    assert_problem(answer, 409, code="payment-links-off")
