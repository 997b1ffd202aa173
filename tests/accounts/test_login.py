"""Logging in, and what a token is good for."""

from importlib.util import find_spec, module_from_spec
from typing import Literal

import pytest
from argon2 import PasswordHasher, extract_parameters
from flask import Flask

from payments_app.accounts import passwords
from tests.support.client import ApiResponse, client_of
from tests.support.people import PASSWORD, People
from tests.support.rows import Rows


def login(app: Flask, email: str, password: str, **kwargs: object) -> ApiResponse:
    return client_of(app).post("/api/login", json={"email": email, "password": password}, **kwargs)


def test_a_json_login_gives_a_bearer_token_at_the_top_level(app: Flask, people: People) -> None:
    answer = login(app, people.patient.email, PASSWORD)

    assert answer.status_code == 200
    assert set(answer.json) == {"token", "token_type", "expires_in"}
    assert answer.json["token_type"] == "Bearer"
    assert answer.json["expires_in"] == 3600


def test_a_form_login_gives_the_same(app: Flask, people: People) -> None:
    form = {"email": people.patient.email, "password": PASSWORD}

    assert client_of(app).post("/api/login", data=form).status_code == 200


def test_the_token_opens_me(app: Flask, people: People) -> None:
    token = login(app, people.admin.email.upper(), PASSWORD).json["token"]

    answer = client_of(app).get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})

    assert answer.status_code == 200
    me = {"id": people.admin.id, "email": people.admin.email, "name": people.admin.email, "role": "admin"}
    assert answer.json["data"] == me


def test_wrong_password_unknown_email_and_disabled_user_get_one_answer(app: Flask, people: People, rows: Rows) -> None:
    rows.execute("UPDATE users SET disabled_at = created_at WHERE id = :id", id=people.other.id)

    refusals = [
        login(app, people.patient.email, "wrong"),
        login(app, "nobody@example.com", PASSWORD),
        login(app, people.other.email, PASSWORD),
    ]

    assert [answer.status_code for answer in refusals] == [401, 401, 401]
    assert len({answer.json["detail"] for answer in refusals}) == 1
    assert len({answer.json["type"] for answer in refusals}) == 1


def test_an_unknown_email_costs_what_a_wrong_password_costs(
    app: Flask, people: People, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []

    class Counting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002  # argon2's own name
            verified.append(str(hash))
            return super().verify(hash, password)

    monkeypatch.setattr(
        passwords, "_hasher", Counting.from_parameters(extract_parameters(passwords.hash_password("a")))
    )

    login(app, people.patient.email, "wrong")
    login(app, "nobody@example.com", "wrong")

    # One hash each, with the same algorithm and parameters: everything before the salt is equal.
    assert len(verified) == 2
    assert verified[0].rsplit("$", 2)[0] == verified[1].rsplit("$", 2)[0]

    # Two of what is typed in another form than it is hashed in, also if it is right and only the user is disabled.
    kept = passwords.hash_password("cafe\u0301")
    rows.execute("UPDATE users SET disabled_at = created_at, password_hash = :kept WHERE id = :id", kept=kept,
                 id=people.other.id)  # fmt: skip
    for email, password in [(people.patient.email, "cafe\u0301 "), ("nobody@example.com", "cafe\u0301"),
                            (people.other.email, "cafe\u0301")]:  # fmt: skip
        verified.clear()
        assert login(app, email, password).status_code == 401
        assert len(verified) == 2


FORMS = ["caf\u00e9 \ufb01ne 12", "cafe\u0301 fine 12", "cafe\u0301 \ufb01ne \uff11\uff12"]


@pytest.mark.parametrize("kept_form", FORMS, ids=ascii)
def test_a_password_is_the_same_from_every_keyboard(kept_form: str, app: Flask, people: People, rows: Rows) -> None:
    kept = passwords.hash_password(kept_form)
    rows.execute("UPDATE users SET password_hash = :kept WHERE id = :id", kept=kept, id=people.patient.id)

    assert [login(app, people.patient.email, form).status_code for form in FORMS] == [200, 200, 200]
    assert login(app, people.patient.email, "cafe fine 12").status_code == 401

    # So is one that was hashed as it was typed, before forms were told apart.
    as_typed = passwords._hasher.hash(kept_form)
    rows.execute("UPDATE users SET password_hash = :kept WHERE id = :id", kept=as_typed, id=people.patient.id)
    assert login(app, people.patient.email, kept_form).status_code == 200


def test_passwords_are_kept_as_argon2id_of_rfc_9106s_low_memory_profile() -> None:
    """As the module sets it: tests/conftest.py lowers the cost of the module that everybody else imports."""
    spec = find_spec(passwords.__name__)
    assert spec is not None
    assert spec.loader is not None
    real = module_from_spec(spec)
    spec.loader.exec_module(real)

    kept = real.hash_password(PASSWORD)

    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert real.is_correct(PASSWORD, kept)
    assert not real.is_correct("wrong", kept)
