"""A database with rows of real users, and one without."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.prove.command.proving import everything
from tests.support.commands import CommandRunner, commands_on
from tests.support.fresh_databases import fresh_database
from tests.support.people import People


@pytest.fixture
def others(people: People, engine: Engine) -> Iterator[dict[str, list[Any]]]:
    """The rows of real users; after the test they have to be the same to the byte."""
    for consultation in (1, 2, 3):
        people.patient.pay(consultation, payment_method="gcash")
    payment_id = people.patient.pay(4).json["data"]["payment_id"]
    people.patient.confirm(payment_id)
    people.admin.post(f"/payments/{payment_id}/refund", {"amount": 1000})
    before = everything(engine)
    yield before
    assert everything(engine) == before


@pytest.fixture
def commands_elsewhere() -> Iterator[CommandRunner]:
    with fresh_database("sqlite") as database, commands_on(database.url) as commands:
        yield commands
