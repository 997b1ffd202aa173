"""On PostgreSQL, service and model go the same way, whatever is asked, told and forgotten, in any order."""

from flask import Flask

from tests.prove.model.runs import assert_model_agrees
from tests.support.dialects import on_postgresql
from tests.support.fake_stripe import FakeStripe


@on_postgresql
def test_service_model_and_audit_agree_after_every_step(
    session_stripe_app: tuple[FakeStripe, Flask], effort: int, seed: int
) -> None:
    assert_model_agrees(session_stripe_app, on="postgresql", effort=effort, seed=seed)
