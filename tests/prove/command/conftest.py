"""The rows of others, and a place where there are none."""

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
    """What real people have in the database; after the test, whatever it did, it is the same to the byte."""
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
