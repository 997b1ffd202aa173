"""What all proofs share."""

import os
import random

import pytest

SHORT_SEED = 1


@pytest.fixture
def seed(effort: int) -> int:
    """Of what is chosen at random: always the same in a short run, another in each long one, unless PROOF_SEED says."""
    given = os.environ.get("PROOF_SEED")
    chosen = int(given) if given else SHORT_SEED if effort == 1 else random.getrandbits(32)
    print(f"to replay: PROOF_SEED={chosen}")  # noqa: T201  # pytest shows it where the test fails
    return chosen
