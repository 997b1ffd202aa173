"""``python -m tests.prove.defences.table``: writes docs/defences.md by trying it all, as ``make defences`` does."""

from collections.abc import Mapping

from tests.prove.defences.trials import TRIALS, Outcome, Trial, laboratory
from tests.support.databases import ROOT

PAGE = ROOT / "docs" / "defences.md"

_BEFORE = """\
# What each defence is for

A defence that nobody has ever seen at work is a belief. So each is taken out of a real service on PostgreSQL (gunicorn,
two processes of eight threads), and the attack that it is there for is made by 16 requests at the same moment. Harm is
counted by rows. An attack that needs luck is made again until it gets through, at most 30 times. With everything in its
place, none of these attacks gets anything through, with locks or without.

`make defences` tries it all, and writes this page from what it has seen; the tests try it too, and compare. The attacks
are the functions by which [`payments prove`](proving.md) attacks a deployment, but for those by webhooks.
"""
_AFTER = """\
How each is taken out, in the service under test alone:

- **The index**: `DROP INDEX`, and the insert of a payment loses its `ON CONFLICT` on its way to the database. That
  second step happens to no deployment: as it is, the statement names the index, and PostgreSQL refuses all of it where
  there is none. **The look** is the one of `/readyz`, at index and CHECKs, without which no payment is taken; it is
  made every ten seconds, and here before each payment.
- **The unique key**, **the unique transaction**, **the unique event**, **the CHECK**: the constraint is dropped; with
  the unique transaction, the unique reference of money by hand as well.
- **The row version**: it is raised as ever, but the `UPDATE` no longer compares it with what was read.
- **The look at what is left**: a refund is compared with all that came, not with what is left of it.
- **The signature**: whatever is sent with one counts as signed.

What the rows say, and what they don't:

- **Locks stop nothing that would not be stopped anyway**; they are there to save work. All attacks are made with
  `PAYMENT_LOCKING` `optimistic` and `redis`, and none gets through either. Without the version, a lease in Redis holds
  instead, but only as long as that Redis does. Without the index it does not even do that: a create looks for nothing
  beforehand, so that a lease only makes the second payment come a little later.
- **The CHECK on refunds** and the look at what is left each hold without the other. The CHECK is for the mistake in the
  code that nobody has found yet, and answers with a 500.
- **The inbox** keeps the trail clean. Money is not counted twice without it: an event is compared with what is known of
  its payment, whose row is locked.
"""


def page_of(outcomes: Mapping[Trial, Outcome]) -> str:
    rows = [f"| {trial.removed} | {trial.attack.name} | {_seen(trial, outcomes[trial])} |" for trial in TRIALS]
    return "\n".join([_BEFORE, "| without | attack | what gets through |", "|---|---|---|", *rows, "", _AFTER])


def _seen(trial: Trial, outcome: Outcome) -> str:
    """What the run has shown, not what was expected of it."""
    if not outcome.harm:
        return "nothing"
    return f"**{trial.through if trial.through in outcome.harm else ', '.join(outcome.harm)}**"


if __name__ == "__main__":
    with laboratory() as lab:
        PAGE.write_text(page_of({trial: lab.make(trial) for trial in TRIALS}))
