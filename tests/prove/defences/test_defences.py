"""Without a defence the attack that it is there for gets through; with all of them in place, none does."""

from collections.abc import Iterator

import pytest

from payments_app.proof.promises import Attack
from tests.prove.defences.table import PAGE, page_of
from tests.prove.defences.trials import (
    ALL_ATTACKS,
    TRIALS,
    TRIES_THAT_FAIL,
    Laboratory,
    Locks,
    Outcome,
    Trial,
    laboratory,
)
from tests.support.recorded_figures import note


@pytest.fixture(scope="module")
def lab() -> Iterator[Laboratory]:
    with laboratory() as lab:
        yield lab


@pytest.fixture(scope="module")
def outcomes() -> dict[Trial, Outcome]:
    return {}


@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_without_it_the_attack_gets_through(trial: Trial, lab: Laboratory, outcomes: dict[Trial, Outcome]) -> None:
    outcomes[trial] = outcome = lab.make(trial)

    assert trial.through in outcome.harm if trial.through else not outcome.harm, outcome


@pytest.mark.parametrize(
    "locks", [Locks.NONE, pytest.param(Locks.REDIS, marks=pytest.mark.long)], ids=lambda it: it.value
)
@pytest.mark.parametrize("attack", ALL_ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
def test_with_all_in_place_no_attack_gets_through(attack: Attack, locks: Locks, lab: Laboratory, effort: int) -> None:
    tries = 1 if effort == 1 else TRIES_THAT_FAIL * effort

    outcome = lab.attack_sound_service(attack, locks, tries)

    assert outcome == Outcome({}, tries)


def test_the_page_says_what_the_run_yields(lab: Laboratory, outcomes: dict[Trial, Outcome]) -> None:
    for trial in TRIALS:
        if trial not in outcomes:  # this test was chosen alone
            outcomes[trial] = lab.make(trial)
    note("defences", **{str(trial): outcome.harm for trial, outcome in outcomes.items()})

    assert PAGE.read_text() == page_of(outcomes)
