"""Users of the API, each with a token and a test client."""

from collections.abc import Mapping
from copy import copy
from functools import cache
from typing import Any

from flask import Flask
from sqlalchemy import Engine, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from payments_app import clock
from payments_app.accounts import auth, passwords
from payments_app.accounts.models import Role, User
from payments_app.accounts.repository import Credentials, find_credentials
from payments_app.consultations.models import Consultation
from payments_app.db.base import table_of
from payments_app.demo import repository
from tests.support.apps import engine_of
from tests.support.client import ApiClient, ApiResponse, client_of
from tests.support.databases import unsynced

PASSWORD = "correct horse battery staple"

# Two patients, and one of each kind of staff.
CAST = {"patient": Role.PATIENT, "other": Role.PATIENT, "admin": Role.ADMIN, "booking": Role.BOOKING}


@cache
def _password_hash() -> str:
    return passwords.hash_password(PASSWORD)


def _add_people(engine: Engine, consultations: Mapping[str, range]) -> dict[str, int]:
    """Add the users and return their ids. Only three statements, because nearly every test does this."""
    now = clock.now()
    users = [
        {
            "email": email,
            "normalized_email": email,
            "name": email,
            "role": role,
            "password_hash": _password_hash(),
            "created_at": now,
        }
        for email, role in ((_email(name), role) for name, role in CAST.items())
    ]
    with unsynced(engine) as connection:
        new = (sqlite if engine.dialect.name == "sqlite" else postgresql).insert(table_of(User))
        connection.execute(new.on_conflict_do_nothing(), users)
        known = connection.execute(select(User.email, User.id).where(User.email.in_([user["email"] for user in users])))
        ids = {email.partition("@")[0]: user_id for email, user_id in known}
        theirs = [
            {"id": number, "patient_id": ids[whose], "currency": "PHP", "created_at": now, "updated_at": now}
            for whose, numbers in consultations.items()
            for number in numbers
        ]
        if theirs:
            connection.execute(insert(table_of(Consultation)).returning(Consultation.id), theirs)
    return ids


def _email(name: str) -> str:
    return f"{name}@example.com"


class Person:
    """A logged-in user; paths are below ``/api/v1``."""

    def __init__(self, client: ApiClient, user_id: int, email: str, token: str) -> None:
        self._client = client
        self.id = user_id
        self.email = email
        self.token = token

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def get(self, path: str, **kwargs: Any) -> ApiResponse:
        return self.send("GET", path, **kwargs)

    def post(self, path: str, json: Any = None, **kwargs: Any) -> ApiResponse:
        return self.send("POST", path, json={} if json is None and "data" not in kwargs else json, **kwargs)

    def put(self, path: str, json: Any = None, **kwargs: Any) -> ApiResponse:
        return self.send("PUT", path, json=json, **kwargs)

    def send(self, method: str, path: str, headers: Mapping[str, str] | None = None, **kwargs: Any) -> ApiResponse:
        if kwargs.get("json", ...) is None:
            del kwargs["json"]
        headers = {**self.authorization, **(headers or {})}
        return self._client.open(f"/api/v1{path}", method=method, headers=headers, **kwargs)

    def pay(self, consultation_id: int = 5, key: str | None = None, **members: Any) -> ApiResponse:
        """POST /payments, with default values for all members."""
        body = {"consultation_id": consultation_id, "amount": 5000, "payment_method": "stripe", **members}
        return self.post("/payments", body, headers={"Idempotency-Key": key} if key else {})

    def confirm(
        self, payment_id: int, transaction_id: str = "TXN-1", key: str | None = None, **members: Any
    ) -> ApiResponse:
        body = {"transaction_id": transaction_id, **members}
        return self.post(f"/payments/{payment_id}/confirm", body, headers={"Idempotency-Key": key} if key else {})


class People:
    """Two patients, an admin and a booking system."""

    patient: Person
    other: Person
    admin: Person
    booking: Person

    def __init__(self, app: Flask, **consultations: range) -> None:
        """Add them all, with the consultations of each patient, in one transaction."""
        self.app = app
        ids = _add_people(engine_of(app), consultations)
        with app.app_context():
            for name, role in CAST.items():
                token = auth.issue(Credentials(ids[name], role, 0, _password_hash(), disabled=False))
                setattr(self, name, Person(client_of(app), ids[name], _email(name), token))

    def another_admin(self) -> Person:
        """A second admin: the one who approves."""
        engine, email = engine_of(self.app), _email("second-admin")
        new = (sqlite if engine.dialect.name == "sqlite" else postgresql).insert(table_of(User))
        row = {
            "email": email,
            "normalized_email": email,
            "name": email,
            "role": Role.ADMIN,
            "password_hash": _password_hash(),
            "created_at": clock.now(),
        }
        with unsynced(engine) as connection:
            connection.execute(new.on_conflict_do_nothing(), [row])
            user_id: int = connection.execute(select(User.id).where(User.email == email)).scalar_one()
        with self.app.app_context():
            token = auth.issue(Credentials(user_id, Role.ADMIN, 0, _password_hash(), disabled=False))
        return Person(client_of(self.app), user_id, email, token)

    def add_consultations(self, whose: str, first: int, last: int) -> None:
        patient: Person = getattr(self, whose)
        with self.app.app_context():
            repository.add_consultations(patient_id=patient.id, first=first, last=last, currency="PHP")

    def seen_by(self, app: Flask) -> "People":
        """The same people with the same tokens, as clients of another app on the same database."""
        others = copy(self)
        others.app = app
        for name in CAST:
            person: Person = getattr(self, name)
            setattr(others, name, Person(client_of(app), person.id, person.email, person.token))
        return others

    def token_from(self, app: Flask, person: Person) -> str:
        """A token that another app, with other secrets, issues."""
        with app.app_context():
            credentials = find_credentials(person.email)
            assert credentials is not None
            return auth.issue(credentials)

    def anonymous(self) -> ApiClient:
        return client_of(self.app)
