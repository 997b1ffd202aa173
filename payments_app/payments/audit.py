"""Audits all payments against M1 to M7, and M10 to M12, and patients whose data were erased.

Each check is one query, for the rows that break a promise.

A query sees one moment, so an audit may run beside a busy service. Two promises are about the code, and no row can
prove them: amounts are exact (M9), and no gateway call is made inside a transaction (M8).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from payments_app import money
from payments_app.accounts.models import ERASED_DOMAIN, ERASED_NAME
from payments_app.db.base import in_check
from payments_app.db.transaction import read_transaction
from payments_app.gateways.references import BY_HAND, normalized_reference
from payments_app.payments.models.dispute import BLOCKING, OPEN, UNANSWERED, Dispute
from payments_app.payments.models.event import UNCOUNTED_MONEY, PaymentEvent
from payments_app.payments.models.payment import ACTIVE_PREDICATE, REFERENCE_ALONE, Payment
from payments_app.payments.models.status import ENDED_UNPAID, PAID, REFUNDABLE, PaymentStatus

# Violations per query: if every payment breaks a promise, a million of them must not be held in memory.
BATCH_SIZE = 1_000


@dataclass(frozen=True, slots=True)
class Check:
    """A promise, and the query for the payments that break it. The query's columns are ``id`` and ``detail``."""

    invariant: str
    promise: str
    query: str


@dataclass(frozen=True, slots=True)
class Violation:
    """A payment that breaks a promise, or that staff must look at (``invariant`` is ``review`` or ``dispute``)."""

    invariant: str
    payment_id: int
    detail: str


def _exactly_one(label: str, table: str, condition: str = "") -> str:
    return f"""
        SELECT p.id, 'has ' || count(r.payment_id) || ' {label} instead of 1' AS detail
        FROM payments p LEFT JOIN {table} r ON r.payment_id = p.id {condition}
        GROUP BY p.id HAVING count(r.payment_id) <> 1"""


def _is_blocked(payment_id: str, version: str) -> str:
    """Whether a dispute blocked the payment's refunds at that version, by its own trail. Versions, because they give
    the order in which transactions changed the payment; times are of when their requests began.
    """
    return f"""'refunds.blocked' = (
        SELECT e.event FROM payment_events e
        WHERE e.payment_id = {payment_id} AND e.version <= {version}
            AND e.event IN ('refunds.blocked', 'refunds.released')
        ORDER BY e.version DESC LIMIT 1)"""


CHECKS = (
    Check(
        "M1",
        "at most one active payment per consultation",
        f"""
        SELECT min(id) AS id, 'consultation ' || consultation_id || ' has ' || count(*) || ' active payments' AS detail
        FROM payments WHERE {ACTIVE_PREDICATE} GROUP BY consultation_id HAVING count(*) > 1""",
    ),
    Check(
        "M2",
        "every effect raised the version by exactly one",
        """
        SELECT p.id, 'is at version ' || p.version || ', but its events have ' || count(DISTINCT e.version)
            || ' versions up to ' || coalesce(max(e.version), -1) AS detail
        FROM payments p LEFT JOIN payment_events e ON e.payment_id = p.id
        GROUP BY p.id, p.version
        HAVING count(DISTINCT e.version) <> p.version + 1 OR coalesce(max(e.version), -1) <> p.version""",
    ),
    Check(
        "M3",
        "refunds never exceed the money received",
        """
        SELECT id, 'received ' || received_minor || ', reserved ' || refund_reserved_minor || ', refunded '
            || refunded_minor || ' (minor units)' AS detail
        FROM payments WHERE refund_reserved_minor + refunded_minor > received_minor""",
    ),
    Check(
        "M3",
        "the refunds of a payment add up to its reserved and refunded amounts",
        """
        SELECT p.id, 'reserved ' || p.refund_reserved_minor || ' for refunds of ' || coalesce(sum(r.open_minor), 0)
            || ', refunded ' || p.refunded_minor || ' by refunds of ' || coalesce(sum(r.over_minor), 0)
            || ' (minor units)' AS detail
        FROM payments p LEFT JOIN (
            SELECT payment_id,
                CASE WHEN status IN ('requested', 'pending', 'unknown') THEN amount_minor - excess_minor ELSE 0 END
                    AS open_minor,
                CASE WHEN status = 'succeeded' THEN amount_minor - excess_minor ELSE 0 END AS over_minor
            FROM refunds) AS r ON r.payment_id = p.id
        GROUP BY p.id, p.refund_reserved_minor, p.refunded_minor
        HAVING coalesce(sum(r.open_minor), 0) <> p.refund_reserved_minor
            OR coalesce(sum(r.over_minor), 0) <> p.refunded_minor""",
    ),
    Check(
        "M3",
        "a refund that waits for approval was not sent, and nobody approved a refund of their own",
        """
        SELECT payment_id AS id, 'refund ' || id || ' is ' || status || ', requested by user '
            || coalesce(requested_by, 0) || ', approved by user ' || coalesce(approved_by, 0) AS detail
        FROM refunds WHERE approved_by = requested_by OR (status = 'requested'
            AND (approved_by IS NOT NULL OR sent_at_version IS NOT NULL OR reference IS NOT NULL))""",
    ),
    Check(
        "M3",
        "a refund by hand succeeded by a transfer of its own",
        """
        SELECT payment_id AS id, 'refund ' || id || ' by hand is succeeded, by '
            || coalesce('transfer ' || transfer_reference || ' of another refund too', 'no transfer') AS detail
        FROM refunds r WHERE by_hand AND status = 'succeeded' AND (transfer_reference IS NULL OR EXISTS (
            SELECT 1 FROM refunds o WHERE o.id <> r.id AND o.gateway = r.gateway
                AND o.payment_method = r.payment_method AND o.normalized_reference = r.normalized_reference))""",
    ),
    Check(
        "M4",
        "one key of one user has one effect",
        """
        SELECT min(payment_id) AS id, 'user ' || user_id || ' has the key ' || key || ' twice' AS detail
        FROM idempotency_keys GROUP BY user_id, key HAVING count(*) > 1""",
    ),
    Check(
        "M4",
        "each payment was made under one key",
        _exactly_one("create keys", "idempotency_keys", "AND r.operation = 'create'"),
    ),
    Check(
        "M5",
        "one gateway transaction pays at most one payment",
        """
        SELECT min(id) AS id,
            gateway || ' transaction ' || transaction_id || ' paid ' || count(*) || ' payments' AS detail
        FROM payments WHERE transaction_id IS NOT NULL
        GROUP BY gateway, payment_method, transaction_id HAVING count(*) > 1""",
    ),
    Check(
        "M5",
        "one transfer by hand pays at most one payment, however its reference is spelled",
        """
        SELECT min(id) AS id,
            gateway || ' transfer ' || normalized_reference || ' paid ' || count(*) || ' payments' AS detail
        FROM payments WHERE normalized_reference IS NOT NULL
        GROUP BY gateway, payment_method, normalized_reference HAVING count(*) > 1""",
    ),
    Check(
        "M5",
        "at most one session of a payment is open, and at most one is being opened",
        """
        SELECT payment_id AS id, count(*) || ' of its sessions are ' || status AS detail
        FROM gateway_sessions WHERE status IN ('open', 'opening') GROUP BY payment_id, status HAVING count(*) > 1""",
    ),
    Check(
        "M5",
        "each session of a payment has a number of its own",
        """
        SELECT payment_id AS id, 'has ' || count(*) || ' sessions with the number ' || number AS detail
        FROM gateway_sessions WHERE number IS NOT NULL GROUP BY payment_id, number HAVING count(*) > 1""",
    ),
    Check(
        "M5",
        "one session of a gateway belongs to one payment",
        """
        SELECT min(payment_id) AS id,
            gateway || ' session ' || reference || ' belongs to ' || count(*) || ' payments' AS detail
        FROM gateway_sessions WHERE reference IS NOT NULL GROUP BY gateway, reference HAVING count(*) > 1""",
    ),
    Check(
        "M5",
        "the sessions of a payment are at its own gateway, and ask for its own amount",
        """
        SELECT p.id, 'session ' || s.id || ' is at ' || s.gateway || ', for '
            || coalesce(s.amount_minor, p.amount_minor) || ' ' || coalesce(s.currency, p.currency)
            || '; the payment is at ' || p.gateway || ', of ' || p.amount_minor || ' ' || p.currency
            || ' (minor units)' AS detail
        FROM gateway_sessions s JOIN payments p ON p.id = s.payment_id
        WHERE s.gateway <> p.gateway OR coalesce(s.amount_minor, p.amount_minor) <> p.amount_minor
            OR coalesce(s.currency, p.currency) <> p.currency""",
    ),
    Check(
        "M5",
        "no payment was paid by the session of another payment",
        """
        SELECT p.id, 'was paid by ' || p.gateway || ' session ' || s.reference
            || ' of payment ' || s.payment_id AS detail
        FROM payments p JOIN gateway_sessions s ON s.gateway = p.gateway AND s.reference = p.transaction_id
        WHERE s.payment_id <> p.id""",
    ),
    # Money in another currency is not counted: the payment's events have it.
    Check(
        "M5",
        "the money of each session that was paid is known",
        """
        SELECT p.id, s.gateway || ' session ' || s.reference || ' was paid, and the payment has no money' AS detail
        FROM gateway_sessions s JOIN payments p ON p.id = s.payment_id
        WHERE s.status = 'succeeded' AND p.received_minor = 0 AND NOT EXISTS (
            SELECT 1 FROM payment_events e WHERE e.payment_id = p.id AND e.event = 'payment.paid_in_other_currency')""",
    ),
    Check("M6", "each payment has one invoice", _exactly_one("invoices", "invoices")),
    Check("M6", "each payment has one tax record", _exactly_one("tax records", "tax_records")),
    Check(
        "M6",
        "each payment has one event of its creation",
        _exactly_one("creation events", "payment_events", "AND r.event = 'payment.created'"),
    ),
    Check(
        "M6",
        "invoice and payment tell the same story",
        f"""
        SELECT p.id, 'is ' || p.status || ', its invoice ' || i.status AS detail
        FROM payments p JOIN invoices i ON i.payment_id = p.id
        WHERE i.amount_minor <> p.amount_minor OR i.status <> CASE
            WHEN p.status IN ('{PaymentStatus.PENDING}', '{PaymentStatus.PROCESSING}') THEN 'pending'
            WHEN p.status = '{PaymentStatus.REFUNDED}' THEN 'refunded'
            WHEN {in_check("p.status", ENDED_UNPAID)} THEN 'void'
            ELSE 'paid' END""",
    ),
    # Before the first note there was a release without any. Totals that no refund is named for have none, nor has what
    # exceeds the money: both are in review.
    Check(
        "M6",
        "each refund of a paid invoice has a credit note",
        """
        SELECT r.payment_id AS id, 'refund ' || r.id || ' has no credit note' AS detail
        FROM refunds r JOIN invoices i ON i.payment_id = r.payment_id
        WHERE r.status = 'succeeded' AND r.excess_minor = 0 AND i.paid_at IS NOT NULL
            AND NOT (r.made_elsewhere AND r.reference IS NULL)
            AND (r.credit_note_id IS NULL AND r.settled_at >= (SELECT min(issued_at) FROM credit_notes)
                OR r.credit_note_id IS NOT NULL AND NOT EXISTS (
                    SELECT 1 FROM credit_notes n WHERE n.id = r.credit_note_id))""",
    ),
    Check(
        "M6",
        "refund and credit note tell the same story",
        """
        SELECT n.payment_id AS id, 'credit note ' || n.id || ' of ' || n.amount_minor || ' is ' || n.status
            || '; its refund of ' || coalesce(r.amount_minor, 0) || ' (minor units) is '
            || coalesce(r.status, 'missing') AS detail
        FROM credit_notes n LEFT JOIN refunds r ON r.credit_note_id = n.id AND r.payment_id = n.payment_id
        WHERE coalesce(r.amount_minor, 0) <> n.amount_minor
            OR r.status <> CASE n.status WHEN 'void' THEN 'failed' ELSE 'succeeded' END""",
    ),
    Check(
        "M6",
        "the credit notes of an invoice give back no more than it has, and no more tax",
        """
        SELECT i.payment_id AS id, 'credit notes of ' || n.amount_minor || ', tax ' || n.tax_minor
            || ', for an invoice of ' || i.amount_minor || ', tax ' || t.amount_minor || ' (minor units)' AS detail
        FROM invoices i JOIN tax_records t ON t.payment_id = i.payment_id JOIN (
            SELECT invoice_id, sum(amount_minor) AS amount_minor, sum(tax_minor) AS tax_minor
            FROM credit_notes WHERE status = 'issued' GROUP BY invoice_id) AS n ON n.invoice_id = i.id
        WHERE n.amount_minor > i.amount_minor OR n.tax_minor > t.amount_minor
            OR n.amount_minor = i.amount_minor AND n.tax_minor <> t.amount_minor""",
    ),
    # Those of `payments prove` have a series of their own, and are removed again.
    Check(
        "M6",
        "credit notes are numbered 1, 2, 3 and so on, up to the counter",
        """
        SELECT payment_id AS id, 'credit note ' || number || ' comes after ' || before || '; the counter is at '
            || coalesce(last_number, 0) AS detail
        FROM (SELECT payment_id, number, coalesce(lag(number) OVER (ORDER BY number), 0) AS before,
                lead(number) OVER (ORDER BY number) AS next,
                (SELECT c.last_number FROM credit_note_counters c WHERE c.series = 'CN') AS last_number
            FROM credit_notes WHERE series = 'CN') AS numbered
        WHERE number <> before + 1 OR next IS NULL AND number <> coalesce(last_number, 0)""",
    ),
    Check(
        "M7",
        "every change of status has an event",
        """
        SELECT p.id, 'is ' || p.status || ', but its last event says ' || coalesce(e.to_status, 'nothing') AS detail
        FROM payments p LEFT JOIN payment_events e ON e.payment_id = p.id
            AND e.id = (SELECT max(id) FROM payment_events newest WHERE newest.payment_id = p.id)
        WHERE coalesce(e.to_status, '') <> p.status""",
    ),
    Check(
        "M7",
        "the events of a payment follow from one another",
        """
        SELECT payment_id AS id, 'event ' || event_id || ' comes from ' || coalesce(from_status, 'nothing')
            || ' after ' || coalesce(before, 'nothing') || ', at version ' || version AS detail
        FROM (SELECT payment_id, id AS event_id, from_status, version,
                lag(to_status) OVER (PARTITION BY payment_id ORDER BY id) AS before,
                lag(version) OVER (PARTITION BY payment_id ORDER BY id) AS version_before FROM payment_events) AS trail
        WHERE coalesce(from_status, '') <> coalesce(before, '') OR version < coalesce(version_before, 0)""",
    ),
    Check(
        "M10",
        "positions in the feed are 1, 2, 3 and so on",
        """
        SELECT payment_id AS id, 'event ' || event_id || ' has position ' || position || ', after ' || before AS detail
        FROM (SELECT payment_id, id AS event_id, position, coalesce(lag(position) OVER (ORDER BY position), 0) AS before
            FROM payment_events WHERE position IS NOT NULL) AS feed
        WHERE position <> before + 1""",
    ),
    Check(
        "M10",
        "a webhook delivery has the position of its event",
        """
        SELECT e.payment_id AS id, 'delivery ' || d.id || ' of event ' || e.id || ' has position ' || d.position
            || ', not ' || coalesce(e.position, 0) AS detail
        FROM webhook_deliveries d JOIN payment_events e ON e.id = d.event_id
        WHERE d.position <> coalesce(e.position, 0)""",
    ),
    Check(
        "M11",
        "a link changed payments of its own consultation alone",
        """
        SELECT p.id, e.actor || ' changed it, which is of consultation ' || p.consultation_id AS detail
        FROM payment_events e JOIN payments p ON p.id = e.payment_id
            LEFT JOIN payment_links l ON e.actor = 'payer:' || l.id
        WHERE e.actor LIKE 'payer:%' AND coalesce(l.consultation_id, 0) <> p.consultation_id""",
    ),
    # Both times are of the process that let the request in. When a link was revoked, another process's clock has said,
    # which may be a moment behind: that no row can prove.
    Check(
        "M11",
        "a link changed nothing after its end",
        """
        SELECT e.payment_id AS id, e.actor || ' had expired at ' || l.expires_at || ' before ' || e.event AS detail
        FROM payment_events e JOIN payment_links l ON e.actor = 'payer:' || l.id
        WHERE e.created_at >= l.expires_at""",
    ),
    Check(
        "people",
        "of a patient whose data were erased nothing is left but a pseudonym",
        f"""
        SELECT min(p.id) AS id, 'user ' || u.id || ' was erased, and still has ' || CASE
            WHEN u.email NOT LIKE 'erased-%@{ERASED_DOMAIN}' OR coalesce(u.normalized_email, '') <> u.email
                THEN 'an e-mail address'
            WHEN u.name <> '{ERASED_NAME}' THEN 'a name'
            WHEN u.disabled_at IS NULL THEN 'a login'
            ELSE 'a consultation that is open, or has a description' END AS detail
        FROM users u JOIN payments p ON p.user_id = u.id JOIN consultations c ON c.id = p.consultation_id
        WHERE u.erased_at IS NOT NULL AND (u.email NOT LIKE 'erased-%@{ERASED_DOMAIN}'
            OR coalesce(u.normalized_email, '') <> u.email OR u.name <> '{ERASED_NAME}' OR u.disabled_at IS NULL
            OR c.description IS NOT NULL OR c.closed_at IS NULL)
        GROUP BY u.id, u.email, u.normalized_email, u.name, u.disabled_at""",
    ),
    Check(
        "M12",
        "refunds are blocked exactly while a dispute is open or lost",
        f"""
        SELECT p.id, CASE WHEN p.is_disputed THEN 'blocks refunds, and has no dispute that is open or lost'
            ELSE 'has a dispute that is open or lost, and does not block refunds' END AS detail
        FROM payments p WHERE p.is_disputed <> EXISTS (
            SELECT 1 FROM disputes d WHERE d.payment_id = p.id AND {in_check("d.status", BLOCKING)})""",
    ),
    Check(
        "M12",
        "no refund is requested or approved while a dispute is open or lost",
        f"""
        SELECT r.payment_id AS id, r.event || ' at version ' || r.version || ', while disputed' AS detail
        FROM payment_events r
        WHERE r.event IN ('refund.requested', 'refund.approved') AND {_is_blocked("r.payment_id", "r.version")}""",
    ),
    Check(
        "M12",
        "no refund is sent while a dispute is open or lost",
        f"""
        SELECT r.payment_id AS id, 'refund ' || r.id || ' was sent at version ' || r.sent_at_version
            || ', while disputed' AS detail
        FROM refunds r WHERE {_is_blocked("r.payment_id", "r.sent_at_version")}""",
    ),
)


def find_violations(check: Check) -> Iterator[Violation]:
    """Every payment that breaks the promise, by ascending id."""
    position = (0, "")
    while batch := _next_batch(check, position):
        yield from batch
        position = (batch[-1].payment_id, batch[-1].detail)


def find_reviews() -> Iterator[Violation]:
    """Every payment that needs a review, with the refund to make. They break no promise."""
    last_id = 0
    while batch := _next_reviews(last_id):
        yield from batch
        last_id = batch[-1].payment_id


@read_transaction
def _next_reviews(session: Session, last_id: int) -> list[Violation]:
    marked = select(Payment).where(Payment.needs_review, Payment.id > last_id).order_by(Payment.id).limit(BATCH_SIZE)
    payments = session.scalars(marked).all()
    # In the review that goes on: staff may have ended an earlier one.
    reviewed = (
        select(func.coalesce(func.max(PaymentEvent.id), 0))
        .where(PaymentEvent.payment_id == Payment.id, PaymentEvent.event == "payment.reviewed")
        .correlate(Payment)
        .scalar_subquery()
    )
    uncounted = (
        select(PaymentEvent.payment_id, PaymentEvent.reference)
        .join(Payment, Payment.id == PaymentEvent.payment_id)
        .where(Payment.id.in_([payment.id for payment in payments]), PaymentEvent.event.in_(UNCOUNTED_MONEY))
        .where(PaymentEvent.id > reviewed, PaymentEvent.reference.is_not(None))
        .order_by(PaymentEvent.id)
    )
    elsewhere: defaultdict[int, list[str]] = defaultdict(list)
    for payment_id, transaction_id in session.execute(uncounted):
        elsewhere[payment_id].append(str(transaction_id))
    return [
        Violation(
            "review",
            payment.id,
            f"is {payment.status}, received {money.to_text(payment.received_minor)} {payment.currency};"
            f" refund to make: {_refund_to_make(payment, elsewhere[payment.id])}",
        )
        for payment in payments
    ]


def find_disputes() -> Iterator[Violation]:
    """Every dispute and inquiry that the bank has not decided, with the day by which to answer. Breaks no promise."""
    last_id = 0
    while batch := _next_disputes(last_id):
        for dispute in batch:
            yield Violation("dispute", dispute.payment_id, _dispute_in_words(dispute))
        last_id = batch[-1].id


@read_transaction
def _next_disputes(session: Session, last_id: int) -> Sequence[Dispute]:
    undecided = select(Dispute).where(Dispute.status.in_(OPEN), Dispute.id > last_id)
    return session.scalars(undecided.order_by(Dispute.id).limit(BATCH_SIZE)).all()


def _dispute_in_words(dispute: Dispute) -> str:
    amount = f"{money.to_text(dispute.amount_minor)} {dispute.currency}"
    told = f"{dispute.gateway} {dispute.reference} of {amount} is {dispute.status.replace('_', ' ')}"
    if dispute.status not in UNANSWERED:
        return f"{told}; nothing to answer"
    due_at = (
        "at once: the gateway names no day" if dispute.due_at is None else f"by {dispute.due_at:%Y-%m-%d %H:%M} UTC"
    )
    return f"{told}; answer {due_at}"


def find_shared_references() -> Iterator[Violation]:
    """Every payment by hand whose transfer also paid another payment, in any spelling of the reference.

    Listed only while both payments hold money: either one of them has to be refunded, or there were two transfers. The
    unique index prevents new ones; these are older than the index.
    """
    last_id = 0
    while batch := _next_alone(last_id):
        for payment_id, method, reference in batch:
            if (other := _paid_with(payment_id, method, reference)) is not None:
                detail = f"was paid with {reference!a}, and so was payment {other}; refund to make: one of the two"
                yield Violation("review", payment_id, detail)
        last_id = batch[-1][0]


_HOLDS_MONEY = Payment.received_minor > Payment.refunded_minor


@read_transaction
def _next_alone(session: Session, last_id: int) -> list[tuple[int, str, str]]:
    columns = (Payment.id, Payment.payment_method, func.coalesce(Payment.transaction_id, ""))
    alone = select(*columns).where(REFERENCE_ALONE, _HOLDS_MONEY, Payment.id > last_id)
    found = session.execute(alone.order_by(Payment.id).limit(BATCH_SIZE))
    return [(payment_id, method, reference) for payment_id, method, reference in found]


@read_transaction
def _paid_with(session: Session, payment_id: int, method: str, reference: str) -> int | None:
    """The id of another payment by hand that still holds the money of that transfer."""
    normalized = normalized_reference(BY_HAND, reference)
    others = (Payment.payment_method == method, Payment.id != payment_id, _HOLDS_MONEY)
    compared = (Payment.gateway == BY_HAND, Payment.normalized_reference == normalized)
    if (found := session.scalar(select(Payment.id).where(*others, *compared))) is not None:
        return found
    columns = (Payment.id, func.coalesce(Payment.transaction_id, ""))
    alone = session.execute(select(*columns).where(*others, REFERENCE_ALONE))
    return next((found for found, used in alone if normalized_reference(BY_HAND, used) == normalized), None)


def _refund_to_make(payment: Payment, elsewhere: Sequence[str]) -> str:
    """The whole amount if none of it belongs to the payment; otherwise only the payment's events say how much.

    ``elsewhere``: transactions of the payment that its amounts do not count, so no refund here returns them.
    """
    if payment.is_disputed:
        here = "none, because it is disputed"
    else:
        left = money.to_text(payment.refundable_minor)
        here = f"up to {left}, see its events" if payment.status in REFUNDABLE else left
    if not elsewhere:
        return here
    at_gateway = f"in the dashboard of {payment.gateway}, all of transaction {' and of '.join(elsewhere)}"
    # Nothing that came first is too much: it paid the payment.
    return at_gateway if payment.status in PAID and not payment.is_disputed else f"{here}; and {at_gateway}"


@read_transaction
def _next_batch(session: Session, check: Check, position: tuple[int, str]) -> list[Violation]:
    batch = text(
        f"SELECT id, detail FROM ({check.query}) AS offenders "
        "WHERE (id, detail) > (:id, :detail) ORDER BY id, detail LIMIT :size"
    )
    rows = session.execute(batch, {"id": position[0], "detail": position[1], "size": BATCH_SIZE})
    return [Violation(check.invariant, row.id, row.detail) for row in rows]


@read_transaction
def count_payments(session: Session) -> int:
    return session.execute(text("SELECT count(*) FROM payments")).scalar_one()  # type: ignore[no-any-return]  # text has no types
