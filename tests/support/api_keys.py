"""API keys of the people in tests."""

from datetime import timedelta

from payments_app.accounts import api_keys
from payments_app.accounts.api_keys import NewKey
from payments_app.accounts.models import Scope
from tests.support.people import People, Person


def key_of(people: People, person: Person, *scopes: str, lifetime: timedelta | None = None) -> "Program":
    """The person as a program that sends an API key with these scopes; with all of them if none is given."""
    new = NewKey(
        name="tests", scopes=[Scope(scope) for scope in scopes or Scope], lifetime=lifetime, created_by="tests"
    )
    with people.app.app_context():
        row, key = api_keys.create(new, email=person.email)
    return Program(people, person, row.id, key)


class Program(Person):
    """A program with an API key."""

    def __init__(self, people: People, person: Person, key_id: int, key: str) -> None:
        super().__init__(people.anonymous(), person.id, person.email, key)
        self.key_id = key_id
