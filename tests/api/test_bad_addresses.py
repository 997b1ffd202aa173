"""Paths, methods and queries that lead nowhere: 404, 405 and 422, as problem documents (spec, section 5)."""

import pytest

from tests.api.assertions import ApiUnderTest, assert_problem, nothing_written
from tests.support.people import People, Person
from tests.support.rows import Rows

LARGEST_ID = 2**63 - 1
ARABIC_INDIC = str.maketrans("0123456789", "\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669")

CONFIRMATION = {"transaction_id": "TXN-1"}
REGISTRATION = {"patient_email": "patient@example.com"}
# Method, path and body of everything that has an id in its path.
ADDRESSES = {
    "consultation": ("GET", "/consultations/{id}", None),
    "registration": ("PUT", "/consultations/{id}", REGISTRATION),
    "closing": ("POST", "/consultations/{id}/close", {}),
    "payment": ("GET", "/payments/{id}", None),
    "events": ("GET", "/payments/{id}/events", None),
    "confirmation": ("POST", "/payments/{id}/confirm", CONFIRMATION),
    "cancellation": ("POST", "/payments/{id}/cancel", {}),
    "refund": ("POST", "/payments/{id}/refund", {}),
    "shown refund": ("GET", "/refunds/{id}", None),
    "settling": ("POST", "/refunds/{id}/settle", {"reference": "GC-1"}),
    "approval": ("POST", "/refunds/{id}/approve", {}),
    "rejection": ("POST", "/refunds/{id}/reject", {"reason": "no"}),
    "link": ("POST", "/consultations/{id}/links", {}),
    "links": ("GET", "/consultations/{id}/links", None),
    "webhook change": ("PATCH", "/webhook-endpoints/{id}", {}),
    "webhook retry": ("POST", "/webhook-endpoints/1/deliveries/{id}/retry", None),
    "revocation": ("DELETE", "/consultations/5/links/{id}", None),
    "revocation elsewhere": ("DELETE", "/consultations/{id}/links/1", None),
}
OF_REFUNDS = ("shown refund", "settling", "approval", "rejection")
OF_CONSULTATIONS = ("consultation", "closing", "link", "links", "revocation elsewhere")
every_address = pytest.mark.parametrize(("method", "path", "body"), ADDRESSES.values(), ids=ADDRESSES)


@every_address
def test_ids_beyond_63_bits_and_zero_lead_nowhere(api: ApiUnderTest, method: str, path: str, body: object) -> None:
    with api.nothing_written():
        answers = [
            api.people.admin.send(method, path.format(id=number), json=body)
            for number in (0, 2**63, 2**64 + api.pending_id, "9" * 5000, -api.pending_id)
        ]

    for answer in answers:
        assert_problem(answer, 404)


@pytest.mark.parametrize(
    "spelling",
    [
        "0{id}",
        "+{id}",
        "-{id}",
        "{id}.0",
        "{id}e0",
        "{id}_0",
        "0x{id}",
        "%20{id}",
        "{id}%20",
        "{id}%00",
        "{id}%0A",
        "{id};x",
        "%22{id}%22",
        "{id}%ff",
        "{arabic}",
        "{id}%D9%A0",
    ],
)
def test_a_payment_has_one_spelling_of_its_id(api: ApiUnderTest, spelling: str) -> None:
    spelt = spelling.format(id=api.pending_id, arabic=str(api.pending_id).translate(ARABIC_INDIC))

    assert api.people.patient.get(f"/payments/{api.pending_id}").status_code == 200
    with api.nothing_written():
        shown = api.people.patient.get(f"/payments/{spelt}")
        cancelled = api.people.patient.post(f"/payments/{spelt}/cancel")
        opened = api.people.patient.post(f"/payments/{spelt}/checkout")

    # Not "payment-not-found": such an address is none, whichever payments there are.
    assert_problem(shown, 404, code="not-found")
    assert_problem(cancelled, 404, code="not-found")
    assert_problem(opened, 404, code="not-found")


@pytest.mark.parametrize("address", [name for name in ADDRESSES if name != "registration"])
def test_the_largest_id_is_an_id_of_nothing(api: ApiUnderTest, address: str) -> None:
    method, path, body = ADDRESSES[address]
    with api.nothing_written():
        answer = api.people.admin.send(method, path.format(id=LARGEST_ID), json=body)

    codes = {
        **dict.fromkeys(("revocation", "webhook change", "webhook retry"), "not-found"),
        **dict.fromkeys(OF_CONSULTATIONS, "consultation-not-found"),
        **dict.fromkeys(OF_REFUNDS, "refund-not-found"),
    }
    assert_problem(answer, 404, code=codes.get(address, "payment-not-found"))


def test_a_consultation_may_have_the_largest_id(people: People, rows: Rows) -> None:
    assert people.booking.put(f"/consultations/{LARGEST_ID}", REGISTRATION).status_code == 201
    assert people.patient.pay(LARGEST_ID).status_code == 201
    assert rows.count("payments", "consultation_id = :id", id=LARGEST_ID) == 1


@pytest.mark.parametrize("path", ["/api", "/api/v1", "/api/v1/", "/api/v2/me", "/api/v1/login", "/api/v1/payment"])
def test_an_unknown_route_is_a_problem_document(api: ApiUnderTest, path: str) -> None:
    assert_problem(api.people.anonymous().get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/login", {"POST", "OPTIONS"}),
        ("POST", "/api/v1/me", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/api/v1/consultations", {"GET", "HEAD", "OPTIONS"}),
        ("PATCH", "/api/v1/consultations/5", {"GET", "HEAD", "OPTIONS", "PUT"}),
        ("POST", "/api/v1/payment-methods", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/api/v1/payments", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("DELETE", "/api/v1/payments/{id}", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/api/v1/payments/{id}/events", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/api/v1/payments/{id}/confirm", {"POST", "OPTIONS"}),
        ("PUT", "/api/v1/payments/{id}/cancel", {"POST", "OPTIONS"}),
        ("GET", "/api/v1/payments/{id}/checkout", {"POST", "OPTIONS"}),
        ("DELETE", "/api/v1/payments/{id}/refund", {"POST", "OPTIONS"}),
        ("GET", "/api/v1/webhooks/stripe", {"POST", "OPTIONS"}),
        ("BREW", "/api/v1/payments/{id}/cancel", {"POST", "OPTIONS"}),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(api: ApiUnderTest, method: str, path: str, allowed: set[str]) -> None:
    client, authorization = api.people.anonymous(), api.people.admin.authorization
    with api.nothing_written():
        answer = client.open(path.format(id=api.pending_id), method=method, headers=authorization)

    assert_problem(answer, 405)
    assert set(answer.headers["Allow"].split(", ")) == allowed


BAD_NUMBERS = ["", "0", "-1", "%2B5", "05", "5.0", "5e0", "5_0", "0x5", "%205", "5%20", "5%0A", "5%00", "five", "null"]
BAD_NUMBERS += ["%D9%A5", "1%D9%A5", "%EF%BC%95", "%ff", str(2**63), "5" * 5000]
BAD_FILTERS = [
    *(("/payments", "per_page", value) for value in [*BAD_NUMBERS, "101"]),
    *(("/consultations", "per_page", value) for value in ["", "0", "101", "%D9%A5", "5" * 5000]),
    *(("/payments", "consultation_id", value) for value in ["", "0", "%2B5", "5.0", "five", "1%D9%A5", str(2**63)]),
    *(("/consultations", "reference", value) for value in ["", "%20", "BK%2077", "BK-77%00", "B" * 65, "%C3%A9"]),
    *(
        ("/payments", "created_from", value)
        for value in [
            "",
            "2026-11-28",
            "2026-11-28T00:00:00",
            "2026-11-28T00:00:00+08:00",
            "2026-11-28 00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-11-28T24:01:00Z",
            "2026-W48-6T00:00Z",
            "20261128T000000Z",
            "now",
            "%00",
            "0001-01-01T00:00:00%2B14:00",
            "2026-11-28T00:00:00%2B99:00",
            "%D9%A2026-11-28T00:00:00Z",
        ]
    ),
    *(("/payments", name, "2026-11-28") for name in ("created_to", "completed_from", "completed_to")),
    *(("/payments", "needs_review", value) for value in ["", "1", "True", "yes", "null", "%00"]),
    *(("/payments", "payment_method", value) for value in ["", "%00", "a" * 33]),
    *(("/payments", "transaction_id", value) for value in ["", "%00", "a" * 256]),
    *(("/payments", "user_id", value) for value in ["", "0", "-1", str(2**63)]),
    *(("/payments", "patient_email", value) for value in ["", "%00", "a" * 255]),
    *(
        ("/payments", "status", value)
        for value in ["", "PENDING", "pending%20", "pending,failed", "paid", "%00", "%ff"]
    ),
]


@pytest.mark.parametrize(("path", "name", "value"), BAD_FILTERS, ids=lambda part: f"{part:.12}")
def test_a_filter_that_cannot_be_meant_is_named(api: ApiUnderTest, path: str, name: str, value: str) -> None:
    assert_problem(api.people.patient.get(f"{path}?{name}={value}"), 422, name)


def test_filters_at_their_limits_are_taken(api: ApiUnderTest) -> None:
    for query in ("per_page=1", "per_page=100", f"consultation_id={LARGEST_ID}", "status=partially_refunded"):
        assert api.people.patient.get(f"/payments?{query}").status_code == 200


def cursor_of(person: Person, path: str) -> str:
    cursor = person.get(f"{path}?per_page=1").json["meta"]["next_cursor"]
    assert isinstance(cursor, str)
    return cursor


def test_a_cursor_that_we_did_not_issue_for_this_list_is_refused(people: People, rows: Rows) -> None:
    for consultation_id in (5, 6):
        assert people.patient.pay(consultation_id).status_code == 201
    lists = {"/payments": cursor_of(people.patient, "/payments")}
    lists["/consultations"] = cursor_of(people.patient, "/consultations")

    for path, ours in lists.items():
        assert people.patient.get(path, query_string={"cursor": ours}).status_code == 200
        (others,) = lists.keys() - {path}
        position, signature = ours.rsplit(".", 1)
        forged = {
            "another list's": lists[others],
            "nothing": "",
            "a number": "5",
            "an Arabic-Indic digit": "\u0665",
            "NUL": "\x00",
            "JSON": "[5]",
            "unsigned": position,
            "its signature alone": f".{signature}",
            "another position": f"WzVd.{signature}",
            "compressed": f".eJyLNo0FAAIMAQA.{signature}",
            "cut off": ours[:-1],
            "longer": f"{ours}A",
            "a blank before": f" {ours}",
            "capitals": ours.upper(),
            "64 KiB": "A" * 65536,
        }
        with nothing_written(rows):
            answers = {name: people.patient.get(path, query_string={"cursor": text}) for name, text in forged.items()}
        for answer in answers.values():
            assert_problem(answer, 422, "cursor")


# Flask's own names for parts of an address: nothing that a stranger may choose for us.
@pytest.mark.parametrize("stray", ["endpoint=x", "_method=DELETE", "_scheme=gopher", "_anchor=x", "_external=1"])
def test_a_stray_word_in_a_query_bends_no_link_to_the_next_page(api: ApiUnderTest, stray: str) -> None:
    assert_problem(api.people.patient.get(f"/consultations?per_page=1&{stray}"), 422, stray.partition("=")[0])
