"""Tokens that prove nothing, and users who may no longer: 401 and nothing written (spec, section 5)."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from payments_app.accounts.auth import CLOCK_LEEWAY_SECONDS
from tests.api.assertions import ApiUnderTest, assert_problem, nothing_written
from tests.support.dialects import on_postgresql
from tests.support.links import payer_of
from tests.support.people import People, Person
from tests.support.rows import Rows

Token = Callable[[ApiUnderTest], str]

FOREIGN_KEY = "somebody-else's-secret-of-more-than-32-bytes"
NOBODY = 2**63 - 1  # an id that no user has
DEEP = b'{"alg":"HS256","x":' + b"[" * 2000 + b"]" * 2000 + b"}"


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def written(header: bytes, claims: bytes, *, key: str, algorithm: str = "sha256") -> str:
    """A JWT (RFC 7519) by hand, since no library would write most of these."""
    signed = f"{base64url(header)}.{base64url(claims)}"
    return f"{signed}.{base64url(hmac.digest(key.encode(), signed.encode(), algorithm))}"


def claims_of(person: Person) -> dict[str, Any]:
    payload = person.token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return claims


def signed(people: People, person: Person, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """The person's token with other claims, and with our own signature; a claim of None is left out."""
    changed = {name: value for name, value in (claims_of(person) | claims).items() if value is not None}
    header = header or {"alg": "HS256", "typ": "JWT"}
    algorithm = header["alg"].replace("HS", "sha")
    key = people.app.config["JWT_SECRET_KEY"]
    return written(json.dumps(header).encode(), json.dumps(changed).encode(), key=key, algorithm=algorithm)


def patched(person: Person, part: int, content: bytes) -> str:
    parts = person.token.split(".")
    parts[part] = base64url(content)
    return ".".join(parts)


def unsigned(api: ApiUnderTest, algorithm: str) -> str:
    header = json.dumps({"alg": algorithm, "typ": "JWT"}).encode()
    return f"{patched(api.people.patient, 0, header).rsplit('.', 1)[0]}."


def with_claims(**claims: Any) -> Token:
    return lambda api: f"Bearer {signed(api.people, api.people.patient, **claims)}"


def bearer(token: Token) -> Token:
    return lambda api: f"Bearer {token(api)}"


def tampered_to_be_an_admins(api: ApiUnderTest) -> str:
    claims = claims_of(api.people.patient) | {"role": "admin"}
    return patched(api.people.patient, 1, json.dumps(claims).encode())


# What stands in the Authorization header.
PROOFS_OF_NOTHING: dict[str, Token] = {
    "empty": lambda _: "",
    "the scheme alone": lambda _: "Bearer",
    "the scheme and a blank": lambda _: "Bearer ",
    "the token alone": lambda api: api.people.patient.token,
    "another scheme": lambda api: f"Basic {api.people.patient.token}",
    "a made-up scheme": lambda api: f"Bearers {api.people.patient.token}",
    "something behind": lambda api: f"Bearer {api.people.patient.token} x",
    "junk": lambda _: "Bearer junk",
    "dots": lambda _: "Bearer ..",
    "no ASCII": lambda _: "Bearer \u00e9.\u00e9.\u00e9",
    "NUL": lambda api: f"Bearer {api.people.patient.token}\x00",
    "8,000 characters": lambda _: f"Bearer {'a' * 8000}",
    "four parts": bearer(lambda api: f"{api.people.patient.token}.x"),
    "no signature": bearer(lambda api: api.people.patient.token.rsplit(".", 1)[0]),
    "an empty signature": bearer(lambda api: f"{api.people.patient.token.rsplit('.', 1)[0]}."),
    "half a signature": bearer(lambda api: api.people.patient.token[:-20]),
    "another's signature": bearer(
        lambda api: f"{api.people.patient.token.rsplit('.', 1)[0]}.{api.people.admin.token.rsplit('.', 1)[1]}"
    ),
    "tampered to be an admin's": bearer(tampered_to_be_an_admins),
    "a header that is no object": bearer(lambda api: patched(api.people.patient, 0, b"[]")),
    "a header that is no UTF-8": bearer(lambda api: patched(api.people.patient, 0, b"\xff\xfe")),
    "a header 2,000 deep": bearer(lambda api: patched(api.people.patient, 0, DEEP)),
    "claims that are no object": bearer(lambda api: patched(api.people.patient, 1, b"[]")),
    "claims 2,000 deep": bearer(lambda api: patched(api.people.patient, 1, DEEP)),
    "claims with 5,000 digits": bearer(lambda api: patched(api.people.patient, 1, b'{"exp":' + b"9" * 5000 + b"}")),
    "algorithm none": bearer(lambda api: unsigned(api, "none")),
    "algorithm None": bearer(lambda api: unsigned(api, "None")),
    "algorithm nOnE": bearer(lambda api: unsigned(api, "nOnE")),
    "no algorithm": bearer(lambda api: patched(api.people.patient, 0, b"{}")),
    "a key id that is no text": bearer(lambda api: patched(api.people.patient, 0, b'{"alg":"HS256","kid":5}')),
    "another algorithm": with_claims(header={"alg": "HS512", "typ": "JWT"}),
    "another key": bearer(
        lambda api: written(
            b'{"alg":"HS256","typ":"JWT"}', json.dumps(claims_of(api.people.patient)).encode(), key=FOREIGN_KEY
        )
    ),
    "an empty key": bearer(
        lambda api: written(b'{"alg":"HS256"}', json.dumps(claims_of(api.people.patient)).encode(), key="")
    ),
    "expired, and not just now": with_claims(exp=int(time.time()) - CLOCK_LEEWAY_SECONDS),
    "not valid yet": with_claims(nbf=int(time.time()) + 3600),
    "issued in an hour": with_claims(iat=int(time.time()) + 3600),
    "a refresh token": with_claims(type="refresh"),
    "without a subject": with_claims(sub=None),
    "a subject that is no id": with_claims(sub="patient"),
    "without a role": with_claims(role=None),
    "an unknown role": with_claims(role="root"),
    "without a version": with_claims(ver=None),
    "nobody's": with_claims(sub=str(NOBODY)),
    "an older version": with_claims(ver=-1),
    "a payer's without a link": with_claims(role="payer", consultation=5),
    "a payer's without a consultation": with_claims(role="payer", link=1),
    "a payer's of a link that is none": with_claims(role="payer", link=True, consultation=5),
    "a payer's of a link that is a text": with_claims(role="payer", link="one", consultation=5),
    "a payer's of a link of 5,000 digits": with_claims(role="payer", link="1" * 5000, consultation=5),
    "a payer's of a link beyond 63 bits": with_claims(role="payer", link=2**63, consultation=5),
    "a payer's of a link that is infinite": with_claims(role="payer", link=float("inf"), consultation=5),
    "a payer's of a list of links": with_claims(role="payer", link=[1], consultation=5),
    "a payer's of the link zero": with_claims(role="payer", link=0, consultation=5),
    "a payer's of no consultation that is one": with_claims(role="payer", link=1, consultation=-5),
    "a payer's of a link that nobody made": with_claims(role="payer", link=NOBODY, consultation=5),
}


def test_a_token_written_by_hand_is_a_token(people: People) -> None:
    """Or else the tests below would refuse it for another reason than theirs."""
    token = signed(people, people.patient)

    answer = people.anonymous().get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})

    assert answer.status_code == 200
    assert answer.json["data"]["id"] == people.patient.id


@on_postgresql
def test_a_token_that_is_remembered_ends_when_it_says(people: People) -> None:
    """What it says was read at the first request, and has ended at the last."""
    ends_at = int(time.time()) + 2
    token = signed(people, people.patient, exp=ends_at - CLOCK_LEEWAY_SECONDS)
    headers = {"Authorization": f"Bearer {token}"}
    client = people.anonymous()
    assert client.get("/api/v1/me", headers=headers).status_code == 200

    while (answer := client.get("/api/v1/me", headers=headers)).status_code == 200:
        assert time.time() < ends_at + 1

    assert_problem(answer, 401, code="not-authenticated")
    assert time.time() >= ends_at


# Seconds by which the clock of the server that issued a token was off, far enough from the leeway for a slow machine.
@pytest.mark.parametrize(("ahead_seconds", "ttl_seconds"), [(1, 3600), (25, 3600), (-15, 1)])
def test_a_token_from_a_server_with_another_clock_is_good(people: People, ahead_seconds: int, ttl_seconds: int) -> None:
    issued_at = int(time.time()) + ahead_seconds
    token = signed(people, people.patient, iat=issued_at, nbf=issued_at, exp=issued_at + ttl_seconds)

    paid = people.anonymous().post(
        "/api/v1/payments",
        json={"consultation_id": 6, "amount": 5000, "payment_method": "stripe"},
        headers={"Authorization": f"Bearer {token}"},
    )

    assert paid.status_code == 201


@pytest.mark.parametrize("before", ["Bearer ", "bearer ", "BEARER ", "bEaReR ", "Bearer   ", "Bearer\t", "bearer \t "])
def test_a_scheme_has_no_case_and_any_blanks_behind_it(people: People, before: str) -> None:
    answer = people.anonymous().get("/api/v1/me", headers={"Authorization": before + people.patient.token})

    assert answer.status_code == 200
    assert answer.json["data"]["id"] == people.patient.id


@pytest.mark.parametrize("proof", PROOFS_OF_NOTHING.values(), ids=PROOFS_OF_NOTHING)
def test_a_bad_token_reads_nothing_and_pays_nothing(
    api: ApiUnderTest, caplog: pytest.LogCaptureFixture, proof: Token
) -> None:
    headers = {"Authorization": proof(api)}
    body = {"consultation_id": 6, "amount": 5000, "payment_method": "stripe"}
    with api.nothing_written():
        read = api.people.anonymous().get("/api/v1/me", headers=headers)
        paid = api.people.anonymous().post("/api/v1/payments", json=body, headers=headers)

    for answer in (read, paid):
        assert_problem(answer, 401, code="not-authenticated")
        assert api.people.patient.token not in answer.text
    assert api.people.patient.token not in caplog.text


EVERYTHING_BUT_LOGIN = [
    ("GET", "/me"),
    ("GET", "/payment-methods"),
    ("GET", "/consultations"),
    ("GET", "/consultations/6"),
    ("PUT", "/consultations/6"),
    ("POST", "/consultations/6/close"),
    ("POST", "/payments"),
    ("GET", "/payments"),
    ("GET", "/payments.csv"),
    ("GET", "/invoices/1.pdf"),
    ("GET", "/credit-notes/1.pdf"),
    ("GET", "/payments/{id}"),
    ("GET", "/payments/{id}/events"),
    ("POST", "/payments/{id}/confirm"),
    ("POST", "/payments/{id}/cancel"),
    ("POST", "/payments/{id}/checkout"),
    ("POST", "/payments/{id}/refund"),
    ("POST", "/payments/{id}/resolve-review"),
    ("GET", "/desk/payments"),
    ("GET", "/desk/queues"),
    ("POST", "/consultations/5/links"),
    ("GET", "/consultations/5/links"),
    ("DELETE", "/consultations/5/links/1"),
    ("POST", "/webhook-endpoints"),
    ("GET", "/webhook-endpoints"),
    ("GET", "/webhook-endpoints/1"),
    ("PATCH", "/webhook-endpoints/1"),
    ("DELETE", "/webhook-endpoints/1"),
    ("POST", "/webhook-endpoints/1/rotate-secret"),
    ("POST", "/webhook-endpoints/1/ping"),
    ("GET", "/webhook-endpoints/1/deliveries"),
    ("POST", "/webhook-endpoints/1/deliveries/1/retry"),
    ("GET", "/idempotency-keys/k"),
]


@pytest.mark.parametrize(("method", "path"), EVERYTHING_BUT_LOGIN)
def test_nothing_but_login_is_to_be_had_without_a_token(api: ApiUnderTest, method: str, path: str) -> None:
    path = f"/api/v1{path.format(id=api.pending_id)}"
    with api.nothing_written():
        bare = api.people.anonymous().open(path, method=method)
        forged = api.people.anonymous().open(path, method=method, headers={"Authorization": "Bearer a.b.c"})
        in_query = api.people.anonymous().open(f"{path}?jwt={api.people.patient.token}", method=method)

    for answer in (bare, forged, in_query):
        assert_problem(answer, 401, code="not-authenticated")


def test_a_payers_token_is_good_for_its_own_link_patient_and_consultation(people: People, rows: Rows) -> None:
    """Each claim is changed to another row that is there, and signed with our key."""
    payer, of_another, of_other = payer_of(people, 5), payer_of(people, 6), payer_of(people, 21)
    forged: dict[str, dict[str, Any]] = {
        "a link of another consultation": {"link": of_another.link_id},
        "another consultation": {"consultation": 6},
        "another patient": {"sub": str(people.other.id)},
        "another patient's link": {"link": of_other.link_id, "consultation": 21},
        "another patient's consultation": {"consultation": 21},
        "an admin": {"sub": str(people.admin.id)},
        "a later version": {"ver": 1},
    }
    with nothing_written(rows):
        for claims in forged.values():
            holder = Person(people.anonymous(), payer.id, payer.email, signed(people, payer, **claims))
            for answer in (holder.get("/me"), holder.get("/consultations"), holder.pay(5), holder.pay(6)):
                assert_problem(answer, 401, code="not-authenticated")
    # By the other roles it names nothing: the patient's own token has none of these claims, and needs none.
    as_patient = Person(people.anonymous(), payer.id, payer.email, signed(people, people.patient, link=payer.link_id))
    assert as_patient.get("/consultations/6").status_code == 200
    assert payer.pay(5).status_code == 201


def test_a_token_of_nobody_changes_nothing(api: ApiUnderTest) -> None:
    """``nobody's`` above, at the other endpoints that write."""
    client = api.people.anonymous()
    for model in (api.people.patient, api.people.admin):
        token = signed(api.people, model, sub=str(NOBODY))
        nobody = Person(client, NOBODY, "nobody@example.com", token)
        with api.nothing_written():
            answers = [
                nobody.confirm(api.pending_id),
                nobody.post(f"/payments/{api.pending_id}/cancel"),
                nobody.put("/consultations/500", {"patient_email": "other@example.com"}),
                nobody.post(f"/payments/{api.pending_id}/checkout"),
                nobody.post(f"/payments/{api.pending_id}/refund"),
            ]

        assert_problem(answers[0], 401, code="not-authenticated")
        assert_problem(answers[1], 401, code="not-authenticated")
        if model is api.people.admin:  # a patient may not register anything, whoever they are
            assert_problem(answers[2], 401, code="not-authenticated")
            assert_problem(answers[4], 401, code="not-authenticated")
        else:  # and only patients check out
            assert_problem(answers[3], 401, code="not-authenticated")
