"""Fixtures for all proofs."""

import os
import random

import pytest

SHORT_SEED = 1


@pytest.fixture
def seed(effort: int) -> int:
    """The random seed: PROOF_SEED if it is set; else the same in each short run, and a new one in each long run."""
    given = os.environ.get("PROOF_SEED")
    chosen = int(given) if given else SHORT_SEED if effort == 1 else random.getrandbits(32)
    print(f"to replay: PROOF_SEED={chosen}")  # noqa: T201  # pytest shows it where the test fails
    return chosen
