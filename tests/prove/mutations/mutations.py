"""Ways to break the service by changing a line or two of it, and which of the proofs notice."""

import re
from dataclasses import dataclass
from pathlib import Path

_INTERLEAVINGS = "tests/prove/interleavings/test_interleavings.py"
_SHORT = f"{_INTERLEAVINGS}::test_every_order_of_few_steps_ends_as_a_serial_one"
_RANDOM = f"{_INTERLEAVINGS}::test_random_orders_end_as_a_serial_one"
_LONG = f"{_INTERLEAVINGS}::test_every_order_ends_as_a_serial_one"
_OF_PAYMONGO = "tests/prove/interleavings/test_of_paymongo.py::test_every_order_ends_as_a_serial_one"
_KILLED = "tests/prove/crashes/test_crashes.py::test_a_process_killed_where_something_is_done_does_it_once"

_FEED = "tests/prove/feed/test_order.py::test_every_reader_sees_each_committed_event_once_and_in_one_order"

# What docs/proof.md calls a test: the test.
TESTS = {
    "confirm/confirm": f"{_RANDOM}[confirms]",
    "confirm/cancel": f"{_SHORT}[confirm_and_cancel]",
    "confirm/expire": f"{_RANDOM}[confirm_and_expire]",
    "confirm/webhook": f"{_RANDOM}[confirm_and_webhook]",
    "refund/refund": f"{_RANDOM}[refunds]",
    "refund/webhook": f"{_RANDOM}[refund_and_webhook]",
    "resume/resume": f"{_RANDOM}[resumes]",
    "confirm/cancel/expire": f"{_RANDOM}[confirm_cancel_and_expire]",
    "refund/refund/webhook": f"{_RANDOM}[refunds_and_webhook]",
    "one key for two consultations": f"{_SHORT}[creates_of_one_key]",
    "create/close": f"{_SHORT}[create_and_close]",
    "cancel/checkout (`--long`)": f"{_LONG}[cancel_and_checkout]",
    "refund/webhook (`--long`)": f"{_LONG}[refund_and_webhook]",
    "PayMongo's checkout/close (`--long`)": f"{_OF_PAYMONGO}[paymongo_checkout_and_close]",
    "PayMongo's send again/send again (`--long`)": f"{_OF_PAYMONGO}[paymongo_sends_again]",
    "a confirm killed": f"{_KILLED}[postgresql-a_confirm]",
    "a webhook killed": f"{_KILLED}[postgresql-a_webhook]",
    "a refund killed": f"{_KILLED}[postgresql-a_refund]",
    "a resume killed": f"{_KILLED}[postgresql-a_resume_that_sends_again]",
    "readers of the feed": f"{_FEED}[postgresql]",
    "a reader beside a giver": (
        "tests/events/test_positions.py::test_a_reader_goes_without_while_another_gives_them[postgresql]"
    ),
    "the order within a payment": (
        "tests/events/test_positions.py::test_a_batch_leaves_out_no_earlier_event_of_a_payment[postgresql-2]"
    ),
    "`tests/refunds/test_resume.py`": (
        "tests/refunds/test_resume.py::test_a_refund_in_somebodys_hands_is_left_to_them[postgresql]"
    ),
}


@dataclass(frozen=True)
class Edit:
    """A text of the service, and what is to stand in its place."""

    path: str
    old: str
    new: str

    def make(self, root: Path) -> None:
        file = root / self.path
        file.write_text(self.fitting(root).replace(self.old, self.new))

    def fitting(self, root: Path) -> str:
        """The file's text, in which the old one is there once."""
        text = (root / self.path).read_text()
        times = text.count(self.old)
        assert times == 1, f"the mutation no longer fits: {self.path} has {times} times {self.old!r}"
        return text


@dataclass(frozen=True)
class Mutation:
    """In the words of docs/proof.md: what is broken, which tests notice, and which do not, though they might."""

    name: str
    edits: tuple[Edit, ...]
    noticed_by: tuple[str, ...]
    missed_by: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As part of the names of tests and files."""
        return re.sub(r"\W+", "-", self.name).strip("-")


_MODELS = "payments_app/payments/models/payment.py"
_CREATE = "payments_app/payments/create_statement.py"
_CHECKOUT = "payments_app/payments/checkout.py"
_CONFIRM = "payments_app/payments/confirm.py"
_CANCEL = "payments_app/payments/cancel.py"
_CONSULTATIONS = "payments_app/consultations/repository.py"
_UNLOCKED = "session.get(Consultation, consultation_id)"
_REFUNDS = "payments_app/refunds/repository.py"
_PROCESS = "payments_app/refunds/service.py"
_STRIPE = "payments_app/gateways/stripe/client.py"
_WEBHOOKS = "payments_app/gateway_webhooks/repository.py"
_POSITIONS = "payments_app/events/positions.py"

MUTATIONS = (
    Mutation(
        "the payment's version is increased, but not compared",
        (
            Edit(_MODELS, "Mapped[int] = mapped_column()", 'Mapped[int] = mapped_column(onupdate=text("version + 1"))'),
            Edit(
                _MODELS,
                '"version_id_col": version,\n'
                '        "version_id_generator": lambda version: 0 if version is None else version + 1,',
                '"eager_defaults": True,',  # who has written it also reads it
            ),
        ),
        noticed_by=(
            "confirm/cancel",
            "confirm/expire",
            "confirm/confirm",
            "confirm/webhook",
            "refund/refund",
            "refund/webhook (`--long`)",
            "confirm/cancel/expire",
            "refund/refund/webhook",
        ),
    ),
    Mutation(
        "a refund is sent inside the transaction that reserves its amount",
        (
            Edit(
                _REFUNDS,
                "    return (PendingRefund.of(refund), response) if is_sent_now else response\n",
                "    find_gateway(payment.gateway).refund(PendingRefund.of(refund).request)\n"
                "    return (PendingRefund.of(refund), response) if is_sent_now else response\n",
            ),
            Edit(
                _PROCESS,
                "(pending.gateway).refund(pending.request)",
                "(pending.gateway).look_up_refund(pending.request)",
            ),
        ),
        noticed_by=("a refund killed",),
    ),
    Mutation(
        "a refund's key is stored with its outcome, not with its row",
        (
            Edit(
                _REFUNDS,
                "    idempotency.store(\n"
                "        session, change.request, response,"
                " payment_id=payment.id, refund_id=refund.id, at=change.context.at\n"
                "    )\n    return (Pending",
                "    return (Pending",
            ),
            Edit(
                _REFUNDS,
                "idempotency.store_final(session, change.request, response)",
                "idempotency.store(session, change.request, response,"
                " payment_id=payment.id, refund_id=refund_id, at=change.context.at)",
            ),
        ),
        noticed_by=("a refund killed",),
    ),
    Mutation(
        "a confirm and its key are two transactions",
        (
            Edit(
                _CONFIRM, "        return flush_and_store(", "        session.commit()\n        return flush_and_store("
            ),
        ),
        noticed_by=("a confirm killed",),
    ),
    Mutation(
        "a webhook's row and its effect are two transactions",
        (
            Edit(
                _WEBHOOKS, "    if is_new and payment is not", "    session.commit()\n    if is_new and payment is not"
            ),
        ),
        noticed_by=("a webhook killed", "refund/webhook", "refund/refund/webhook"),
    ),
    Mutation(
        "`ON CONFLICT DO NOTHING` on the key as well",
        (
            # The plain insert has no such clause.
            Edit(
                _CREATE,
                "table: insert(table).from_select(_columns(table), _values(table).select_from(payment))",
                "table: postgresql.insert(table).from_select(_columns(table), _values(table).select_from(payment))",
            ),
            Edit(_CREATE, "inserts.pop(KEYS).returning", "inserts.pop(KEYS).on_conflict_do_nothing().returning"),
        ),
        noticed_by=("one key for two consultations",),
    ),
    Mutation(
        "each refund call has a new gateway key, and a resume does not look the refund up first",
        (
            Edit(_STRIPE, 'f"refund-{order.refund_id}"', "str(uuid.uuid4())"),
            Edit(_PROCESS, "known = gateway.look_up_refund(pending.request)", "known = None"),
        ),
        noticed_by=("a refund killed", "a resume killed"),
    ),
    Mutation(
        "a confirm does not check again, in its transaction, the status that it checked before the gateway's response",
        (Edit(_CONFIRM, "stored = _judge(session, payment, key, change, proof, render=render)", "stored = None"),),
        noticed_by=("confirm/confirm", "confirm/cancel", "confirm/cancel/expire"),
    ),
    Mutation(
        "a cancel does not check whether a session was opened while it ended the known ones",
        (
            Edit(
                _CANCEL,
                "if not closed <= set(self.references):",
                "if False:",
            ),
        ),
        noticed_by=("cancel/checkout (`--long`)",),
    ),
    Mutation(
        "a cancel does not lock the payment's row",
        (
            Edit(
                _CANCEL,
                "continue_from(session, read, change.caller, locked=True)",
                "continue_from(session, read, change.caller)",
            ),
        ),
        noticed_by=("cancel/checkout (`--long`)",),
    ),
    Mutation(
        "a checkout leaves the session open whose payment ended while it was opened",
        (
            Edit(
                _CHECKOUT, "            gateway.cancel_session(payment.charge, found.reference)\n", "            pass\n"
            ),
        ),
        noticed_by=("cancel/checkout (`--long`)", "PayMongo's checkout/close (`--long`)"),
    ),
    Mutation(
        "the closing does not lock the consultation",
        (Edit(_CONSULTATIONS, "session.get(Consultation, consultation_id, with_for_update=True)", _UNLOCKED),),
        noticed_by=("create/close",),
    ),
    Mutation(
        "a resume ignores the lease",
        (Edit(_REFUNDS, " or refund.leased_until > now", ""),),
        noticed_by=("`tests/refunds/test_resume.py`", "PayMongo's send again/send again (`--long`)"),
        missed_by=("resume/resume", "a resume killed"),
    ),
    Mutation(
        "an event's place in the feed is its id",
        (
            Edit(
                _POSITIONS,
                "row_number() OVER (ORDER BY moment, payment_id, version, created_at, id)\n"
                "            + (SELECT coalesce(max(position), 0) FROM payment_events) AS position,",
                "id AS position,",
            ),
        ),
        noticed_by=("readers of the feed",),
    ),
    Mutation(
        "several processes give positions at the same time",
        (Edit(_POSITIONS, 'not session.execute(_TRY_LOCK, {"lock": _LOCK}).scalar()', "False"),),
        noticed_by=("a reader beside a giver",),
    ),
    Mutation(
        "a batch of positions has the oldest events, without earlier ones of the same payment",
        (
            Edit(_POSITIONS, "AND e.version <= l.version", "AND e.id IN (SELECT id FROM oldest)"),
            Edit(
                _POSITIONS,
                "SELECT e.payment_id, e.version FROM {_WAITING}",
                "SELECT e.id, e.payment_id, e.version FROM {_WAITING}",
            ),
        ),
        noticed_by=("the order within a payment",),
    ),
)
