"""``python -m tests.prove.defences.table``: writes docs/defences.md by trying it all, as ``make defences`` does."""

from collections.abc import Mapping

from tests.prove.defences.trials import TRIALS, Outcome, Trial, laboratory
from tests.support.databases import ROOT

PAGE = ROOT / "docs" / "defences.md"

_BEFORE = """\
# What happens without each defence

Each defence is removed from a real service on PostgreSQL (gunicorn, two processes of eight threads), and 16
simultaneous requests make the attack that it stops. Damage is counted in rows. An attack that needs luck is repeated
until it succeeds, at most 30 times. With all defences in place none of these attacks succeeds, with locks or without.

`make defences` runs all of it, and writes this page from the result; the tests run it too, and compare. The attacks are
the same code as those of [`payments prove`](proving.md), except those by webhooks.
"""
_AFTER = """\
How each defence is removed, in the service under test only:

- **The index**: `DROP INDEX`, and the insert of a payment loses its `ON CONFLICT` on its way to the database. The
  second step cannot happen in a deployment: the statement names the index, and PostgreSQL refuses it if there is none.
  **Its readiness check** is the one of `/readyz`, which checks the index and the CHECK constraints and refuses payments
  if one is missing. It runs every ten seconds; in these tests it runs before each payment.
- **The unique key**, **the unique transaction**, **the unique event**, **the CHECK constraint**: the constraint is
  dropped; with the unique transaction, also the unique reference of payments by hand.
- **The row version**: it is increased as usual, but the `UPDATE` no longer compares it.
- **The check of the refundable amount**: a refund is compared with all money received, not with the rest.
- **The signature**: every signature is accepted.
- **The check of a payer's link**: a request by a payment link is let in whatever became of the link; the statement that
  makes a payment still looks. **Whether a link was revoked**: a revoked link counts as an open one in both.

How to read the rows:

- **Locks stop nothing that is not stopped anyway**; they save work. All attacks run with `PAYMENT_LOCKING` `optimistic`
  and `redis`, and none succeeds with either. Without the version, a lock in Redis holds instead, but only while Redis
  works. Without the index it does not hold: a create looks for no other payment first, so a lock only delays the second
  payment.
- **The CHECK constraint on refunds** and the check of the refundable amount each work without the other. The constraint
  is for unknown bugs in the code, and its response is a 500.
- **A link that was revoked** only reads without the check at each request: a change looks at the link once more, in its
  own transaction.
- **The inbox** keeps the audit trail clean. Money is not counted twice without it: an event is compared with its
  payment, whose row is locked.
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
