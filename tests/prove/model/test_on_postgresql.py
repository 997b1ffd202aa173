"""On PostgreSQL, service and model go the same way, whatever is asked, told and forgotten, in any order."""

import pytest
from flask import Flask

from tests.prove.model.runs import assert_model_agrees
from tests.support.fake_stripe import FakeStripe


@pytest.mark.parametrize("database", ["postgresql"], indirect=True, scope="session")
def test_service_model_and_audit_agree_after_every_step(
    session_stripe_app: tuple[FakeStripe, Flask], effort: int, seed: int
) -> None:
    assert_model_agrees(session_stripe_app, on="postgresql", effort=effort, seed=seed)
