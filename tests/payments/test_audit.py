"""``flask payments audit`` finds each broken promise, names the payment, and finds nothing where nothing is broken."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from subprocess import CalledProcessError

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import Engine, text

from payments_app import clock
from payments_app.accounts.models import Role
from payments_app.payments import audit
from payments_app.payments.models.status import PaymentStatus
from tests.support.apps import app_with
from tests.support.databases import Database, flask
from tests.support.dialects import DIALECTS, on_postgresql
from tests.support.fresh_databases import engine_on, fresh_database
from tests.support.people import People
from tests.support.raw_rows import AMOUNT_MINOR, MOMENT, Raw
from tests.support.rows import Rows

# What a violation's line has to name beside its invariant: the payment, and these words of the detail.
Named = tuple[int, tuple[str, ...]]


@dataclass
class Books:
    """A sound database, until the test breaks something behind the app's back."""

    url: str
    app: Flask
    # Without the app's ways: SQLite does not look at foreign keys there.
    engine: Engine
    people: People
    rows: Rows
    raw: Raw

    @property
    def patient_id(self) -> int:
        return self.people.patient.id

    def pay(self, consultation_id: int) -> int:
        """A pending payment, made through the API."""
        answer = self.people.patient.pay(consultation_id)
        assert answer.status_code == 201
        payment_id: int = answer.json["data"]["payment_id"]
        return payment_id

    def confirm(self, payment_id: int) -> int:
        answer = self.people.patient.confirm(payment_id, f"TXN-{payment_id}", key=f"confirm-{payment_id}")
        assert answer.status_code == 200
        return payment_id

    def sound(self, consultation_id: int, *statuses: str, **otherwise: object) -> int:
        """A payment that went through these statuses, with all that belongs to it, written directly."""
        status = statuses[-1]
        payment_id = self.raw.payment(
            self.patient_id, consultation_id, status, **{"version": len(statuses) - 1, **otherwise}
        )
        invoice_statuses = {"pending": "pending", "processing": "pending", "refunded": "refunded"}
        unpaid_or_paid = "void" if status in ("failed", "cancelled", "expired") else "paid"
        self.raw.invoice(payment_id, status=invoice_statuses.get(status, unpaid_or_paid))
        self.raw.tax_record(payment_id)
        self.raw.key(self.patient_id, payment_id)
        for version, (before, after) in enumerate(zip((None, *statuses), statuses, strict=False)):
            self.raw.event(payment_id, from_status=before, to_status=after, version=version)
        amounts = self.rows.one(
            "SELECT refunded_minor, refund_reserved_minor FROM payments WHERE id = :id", id=payment_id
        )
        if amounts["refunded_minor"]:
            self.raw.refund(payment_id, amount_minor=amounts["refunded_minor"])
        if amounts["refund_reserved_minor"]:
            self.raw.refund(payment_id, amount_minor=amounts["refund_reserved_minor"], status="unknown")
        return payment_id

    def refund(self, payment_id: int, amount: int) -> int:
        """The refund's id."""
        answer = self.people.admin.post(f"/payments/{payment_id}/refund", {"amount": amount})
        assert answer.status_code == 200
        refund_id: int = answer.json["data"]["refund"]["id"]
        return refund_id

    def forget_notes(self) -> None:
        """As if an earlier release had made the refunds."""
        self.rows.execute("UPDATE refunds SET credit_note_id = NULL")
        self.rows.execute("DELETE FROM credit_notes")

    def drop_constraint(self, table: str, constraint: str) -> None:
        if self.engine.dialect.name == "postgresql":
            self.rows.execute(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}")
            return
        # SQLite cannot drop one; a copy of the table has none at all.
        with self.engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE unguarded AS SELECT * FROM {table}"))
            connection.execute(text(f"DROP TABLE {table}"))
            connection.execute(text(f"ALTER TABLE unguarded RENAME TO {table}"))

    def audit(self, *options: str) -> Result:
        """Run the command; here, because a process of its own would take ten times as long."""
        return self.app.test_cli_runner(catch_exceptions=False).invoke(args=["payments", "audit", *options])


@pytest.fixture(scope="session")
def plain_engine(database: Database) -> Iterator[Engine]:
    with engine_on(database.url) as engine:
        yield engine


@pytest.fixture
def books(app: Flask, people: People, database: Database, plain_engine: Engine) -> Books:
    """The database that most tests share."""
    return Books(database.url, app, plain_engine, people, Rows(plain_engine), Raw(plain_engine))


@pytest.fixture(params=DIALECTS)
def own_books(request: pytest.FixtureRequest) -> Iterator[Books]:
    """A database that the test may leave without its guards."""
    with (
        fresh_database(request.param) as database,
        app_with(database.url) as app,
        engine_on(database.url) as engine,
    ):
        people = People(app)
        people.add_consultations(Role.PATIENT, 1, 20)
        yield Books(database.url, app, engine, people, Rows(engine), Raw(engine))


# How each promise can be broken so that no other one is. By the promise that the check names.

Breaking = Callable[[Books], Named]
# By rows alone; and by rows that the database refuses as long as it has all its constraints.
BY_ROWS: list[tuple[str, Breaking]] = []
WITHOUT_GUARDS: list[tuple[str, Breaking]] = []


ADD_UP = "the refunds of a payment add up to its reserved and refunded amounts"


def breaks(promise: str, *, without_guard: bool = False) -> Callable[[Breaking], Breaking]:
    def note(breaking: Breaking) -> Breaking:
        (WITHOUT_GUARDS if without_guard else BY_ROWS).append((promise, breaking))
        return breaking

    return note


@breaks("at most one active payment per consultation", without_guard=True)
def a_second_active_payment(books: Books) -> Named:
    first_id, second_id = books.pay(1), books.pay(2)
    books.rows.execute("DROP INDEX uq_payments_active_consultation")
    books.rows.execute("UPDATE payments SET consultation_id = 1 WHERE id = :id", id=second_id)
    return first_id, ("consultation 1 ", "2 active")


@breaks("every effect raised the version by exactly one")
def a_version_raised_by_nothing(books: Books) -> Named:
    payment_id = books.pay(1)
    books.rows.execute("UPDATE payments SET version = version + 1")
    return payment_id, ("version 1",)


@breaks("every effect raised the version by exactly one")
def one_effect_that_raised_the_version_by_two(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.rows.execute("UPDATE payments SET version = 2")
    books.rows.execute("UPDATE payment_events SET version = 2 WHERE version = 1")
    return payment_id, ("version 2",)


@breaks("every effect raised the version by exactly one")
def an_effect_that_raised_no_version(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.rows.execute("UPDATE payments SET version = 0")
    return payment_id, ("version 0",)


@breaks("refunds never exceed the money received", without_guard=True)
def more_on_its_way_back_than_came(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.raw.refund(payment_id, amount_minor=AMOUNT_MINOR + 1, status="pending")
    books.drop_constraint("payments", "ck_payments_refunds_within_received")
    books.rows.execute("UPDATE payments SET refund_reserved_minor = received_minor + 1")
    return payment_id, ("received 500000", "reserved 500001")


@breaks("refunds never exceed the money received", without_guard=True)
def money_sent_back_that_never_came(books: Books) -> Named:
    payment_id = books.pay(1)
    books.raw.refund(payment_id, amount_minor=1)
    books.drop_constraint("payments", "ck_payments_refunds_within_received")
    books.rows.execute("UPDATE payments SET refunded_minor = 1")
    return payment_id, ("received 0", "refunded 1")


@breaks(ADD_UP)
def a_refund_that_the_payment_does_not_count(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.raw.refund(payment_id, amount_minor=7)
    return payment_id, ("refunded 0 by refunds of 7",)


@breaks(ADD_UP)
def money_set_aside_for_no_refund(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.rows.execute("UPDATE payments SET refund_reserved_minor = 1")
    return payment_id, ("reserved 1 for refunds of 0",)


@breaks(ADD_UP)
def an_open_refund_for_which_nothing_is_set_aside(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.raw.refund(payment_id, amount_minor=7, status="unknown")
    return payment_id, ("reserved 0 for refunds of 7",)


@breaks(ADD_UP)
def a_refund_that_nobody_wrote_down(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.refund(payment_id, 10)
    books.forget_notes()
    books.rows.execute("DELETE FROM refunds")
    return payment_id, ("refunded 1000 by refunds of 0",)


@breaks(ADD_UP)
def a_refund_of_another_amount_than_was_counted(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.refund(payment_id, 10)
    books.forget_notes()
    books.rows.execute("UPDATE refunds SET amount_minor = 1001")
    return payment_id, ("refunded 1000 by refunds of 1001",)


@breaks(ADD_UP)
def a_refund_that_failed_and_is_counted_all_the_same(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.refund(payment_id, 10)
    books.forget_notes()
    books.rows.execute("UPDATE refunds SET status = 'failed'")
    return payment_id, ("refunded 1000 by refunds of 0",)


@breaks(ADD_UP)
def a_refund_on_its_way_that_is_counted_as_arrived(books: Books) -> Named:
    """As much as ever, all in all: but what is on its way may still come to nothing."""
    payment_id = books.confirm(books.pay(1))
    books.refund(payment_id, 10)
    books.forget_notes()
    books.rows.execute("UPDATE refunds SET status = 'unknown', settled_at = NULL")
    return payment_id, ("reserved 0 for refunds of 1000", "refunded 1000 by refunds of 0")


@breaks(ADD_UP)
def an_excess_that_is_counted(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.raw.refund(payment_id, amount_minor=7, excess_minor=3, made_elsewhere=True)
    books.rows.execute("UPDATE payments SET refunded_minor = 7, status = 'completed'")
    return payment_id, ("refunded 7 by refunds of 4",)


@breaks("one key of one user has one effect", without_guard=True)
def a_key_used_twice(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.drop_constraint("idempotency_keys", "pk_idempotency_keys")
    books.raw.key(books.patient_id, payment_id, key=f"confirm-{payment_id}", operation="cancel")
    return payment_id, (f"user {books.patient_id} ",)


@breaks("each payment was made under one key")
def a_payment_without_a_key(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.rows.execute("DELETE FROM idempotency_keys WHERE operation = 'create'")
    return payment_id, ("0 create keys",)


@breaks("each payment was made under one key")
def a_payment_made_under_two_keys(books: Books) -> Named:
    payment_id = books.pay(1)
    books.raw.key(books.patient_id, payment_id)
    return payment_id, ("2 create keys",)


@breaks("one gateway transaction pays at most one payment", without_guard=True)
def a_transaction_that_paid_twice(books: Books) -> Named:
    first_id, _ = books.confirm(books.pay(1)), books.confirm(books.pay(2))
    books.drop_constraint("payments", "uq_payments_transaction")
    books.rows.execute("UPDATE payments SET transaction_id = 'TXN-same'")
    return first_id, ("TXN-same", "2 payments")


@breaks("one transfer by hand pays at most one payment, however its reference is spelled", without_guard=True)
def a_transfer_that_paid_twice(books: Books) -> Named:
    first_id, _ = books.confirm(books.pay(1)), books.confirm(books.pay(2))
    books.rows.execute("DROP INDEX uq_payments_normalized_reference")
    books.rows.execute("UPDATE payments SET normalized_reference = 'ref1'")
    return first_id, ("ref1", "2 payments")


@breaks("positions in the feed are 1, 2, 3 and so on")
def a_gap_in_the_feed(books: Books) -> Named:
    payment_id = books.pay(1)
    books.rows.execute("UPDATE payment_events SET position = 2")
    return payment_id, ("position 2, after 0",)


@breaks("a webhook delivery has the position of its event")
def a_delivery_of_another_position(books: Books) -> Named:
    payment_id = books.pay(1)
    books.rows.execute("UPDATE payment_events SET position = 1")
    event_id = books.rows.one("SELECT id FROM payment_events")["id"]
    delivery_id = books.raw.webhook_delivery(event_id=event_id, position=2)
    return payment_id, (f"delivery {delivery_id} ", "position 2, not 1")


@breaks("a link changed payments of its own consultation alone")
def a_payment_by_a_link_of_another_consultation(books: Books) -> Named:
    payment_id = books.pay(1)
    link_id = books.raw.link(2, books.patient_id, expires_at=MOMENT.replace(year=2100))
    books.rows.execute("UPDATE payment_events SET actor = :actor", actor=f"payer:{link_id}")
    return payment_id, (f"payer:{link_id} ", "consultation 1")


@breaks("a link changed payments of its own consultation alone")
def a_payment_by_a_link_that_nobody_made(books: Books) -> Named:
    payment_id = books.pay(1)
    books.rows.execute("UPDATE payment_events SET actor = 'payer:7'")
    return payment_id, ("payer:7 ", "consultation 1")


@breaks("of a patient whose data were erased nothing is left but a pseudonym")
def a_name_that_was_not_erased(books: Books) -> Named:
    payment_id = books.pay(1)
    books.rows.execute(
        "UPDATE users SET erased_at = created_at, disabled_at = created_at, email = 'erased-7@erased.invalid',"
        " normalized_email = 'erased-7@erased.invalid' WHERE id = :id",
        id=books.patient_id,
    )
    return payment_id, (f"user {books.patient_id} ", "a name")


@breaks("a link changed nothing after its end")
def a_payment_by_a_link_that_had_expired(books: Books) -> Named:
    payment_id, link_id = books.pay(1), books.raw.link(1, books.patient_id)
    books.rows.execute("UPDATE payment_events SET actor = :actor", actor=f"payer:{link_id}")
    return payment_id, (f"payer:{link_id} ", "payment.created")


@breaks("at most one session of a payment is open, and at most one is being opened", without_guard=True)
def two_open_sessions(books: Books) -> Named:
    payment_id = books.pay(1)
    books.rows.execute("DROP INDEX uq_gateway_sessions_open")
    books.raw.session(payment_id)
    books.raw.session(payment_id)
    return payment_id, ("2 of its sessions are open",)


@breaks("at most one session of a payment is open, and at most one is being opened", without_guard=True)
def two_sessions_that_are_being_opened(books: Books) -> Named:
    payment_id = books.pay(1)
    books.rows.execute("DROP INDEX uq_gateway_sessions_opening")
    for number in (1, 2):
        books.raw.session(payment_id, status="opening", reference=None, number=number)
    return payment_id, ("2 of its sessions are opening",)


@breaks("each session of a payment has a number of its own", without_guard=True)
def two_sessions_with_one_number(books: Books) -> Named:
    payment_id = books.pay(1)
    books.rows.execute("DROP INDEX uq_gateway_sessions_number")
    for status in ("lost", "open"):
        books.raw.session(payment_id, status=status, number=3)
    return payment_id, ("2 sessions with the number 3",)


@breaks("one session of a gateway belongs to one payment", without_guard=True)
def a_session_of_two_payments(books: Books) -> Named:
    first_id, second_id = books.pay(1), books.pay(2)
    books.drop_constraint("gateway_sessions", "uq_gateway_sessions_reference")
    for payment_id in (first_id, second_id):
        books.raw.session(payment_id, reference="cs_1")
    return first_id, ("sandbox session cs_1", "2 payments")


@breaks("the sessions of a payment are at its own gateway, and ask for its own amount")
def a_session_at_another_gateway(books: Books) -> Named:
    payment_id = books.pay(1)
    session_id = books.raw.session(payment_id, gateway="paymongo")
    return payment_id, (f"session {session_id} ", "paymongo", "sandbox")


@breaks("the sessions of a payment are at its own gateway, and ask for its own amount")
def a_session_that_asks_for_more(books: Books) -> Named:
    payment_id = books.pay(1)
    books.raw.session(payment_id, number=1, amount_minor=AMOUNT_MINOR + 1, currency="PHP")
    return payment_id, ("for 500001 PHP", "of 500000 PHP")


@breaks("no payment was paid by the session of another payment")
def a_payment_paid_by_the_session_of_another(books: Books) -> Named:
    payment_id, other_id = books.confirm(books.pay(1)), books.pay(2)
    books.raw.session(other_id, reference=f"TXN-{payment_id}")
    return payment_id, (f"sandbox session TXN-{payment_id} of payment {other_id}",)


@breaks("the money of each session that was paid is known")
def a_paid_session_without_money(books: Books) -> Named:
    payment_id = books.pay(1)
    books.raw.session(payment_id, status="succeeded", reference="cs_1")
    return payment_id, ("sandbox session cs_1",)


@breaks("each payment has one invoice")
def a_payment_without_an_invoice(books: Books) -> Named:
    payment_id = books.pay(1)
    books.rows.execute("DELETE FROM invoices")
    return payment_id, ("0 invoices",)


@breaks("each payment has one invoice")
def a_payment_invoiced_twice(books: Books) -> Named:
    payment_id = books.pay(1)
    books.raw.invoice(payment_id)
    return payment_id, ("2 invoices",)


@breaks("each payment has one tax record")
def a_payment_without_a_tax_record(books: Books) -> Named:
    payment_id = books.pay(1)
    books.rows.execute("DELETE FROM tax_records")
    return payment_id, ("0 tax records",)


@breaks("each payment has one tax record")
def a_payment_taxed_twice(books: Books) -> Named:
    payment_id = books.pay(1)
    books.raw.tax_record(payment_id)
    return payment_id, ("2 tax records",)


@breaks("each payment has one event of its creation")
def a_payment_created_twice(books: Books) -> Named:
    payment_id = books.pay(1)
    books.raw.event(payment_id, event="payment.created", from_status="pending", to_status="pending", version=0)
    return payment_id, ("2 creation events",)


@breaks("invoice and payment tell the same story")
def an_invoice_void_though_the_payment_is_pending(books: Books) -> Named:
    payment_id = books.pay(1)
    books.rows.execute("UPDATE invoices SET status = 'void'")
    return payment_id, ("pending", "void")


@breaks("invoice and payment tell the same story")
def an_invoice_open_though_the_payment_is_completed(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.rows.execute("UPDATE invoices SET status = 'pending'")
    return payment_id, ("completed", "pending")


@breaks("invoice and payment tell the same story")
def an_invoice_paid_though_the_payment_was_cancelled(books: Books) -> Named:
    payment_id = books.pay(1)
    assert books.people.patient.post(f"/payments/{payment_id}/cancel").status_code == 200
    books.rows.execute("UPDATE invoices SET status = 'paid'")
    return payment_id, ("cancelled", "paid")


@breaks("invoice and payment tell the same story")
def an_invoice_of_another_amount(books: Books) -> Named:
    payment_id = books.pay(1)
    books.rows.execute("UPDATE invoices SET amount_minor = amount_minor + 1")
    return payment_id, ()


NOTED = "refund and credit note tell the same story"


def _refunded(books: Books) -> int:
    """A payment of 5,000 with refunds of 10 and 20, each with its note."""
    payment_id = books.confirm(books.pay(1))
    books.refund(payment_id, 10)
    books.refund(payment_id, 20)
    return payment_id


@breaks("each refund of a paid invoice has a credit note")
def a_refund_without_a_note(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.refund(payment_id, 10)
    books.raw.refund(payment_id, amount_minor=7, settled_at=clock.now())
    books.rows.execute("UPDATE payments SET refunded_minor = 1007")
    return payment_id, ("has no credit note",)


@breaks(NOTED)
def a_note_of_another_amount(books: Books) -> Named:
    payment_id = _refunded(books)
    books.rows.execute("UPDATE credit_notes SET amount_minor = 2001 WHERE number = 2")
    return payment_id, ("of 2001 is issued", "refund of 2000")


@breaks(NOTED)
def a_note_made_void_for_nothing(books: Books) -> Named:
    payment_id = _refunded(books)
    books.rows.execute("UPDATE credit_notes SET status = 'void', voided_at = issued_at WHERE number = 2")
    return payment_id, ("is void", "is succeeded")


@breaks("the credit notes of an invoice give back no more than it has, and no more tax")
def more_tax_than_the_invoice_has(books: Books) -> Named:
    payment_id = _refunded(books)
    books.rows.execute("UPDATE tax_records SET amount_minor = 359")
    return payment_id, ("tax 360, for an invoice", "tax 359")


@breaks("credit notes are numbered 1, 2, 3 and so on, up to the counter")
def a_number_left_out(books: Books) -> Named:
    payment_id = _refunded(books)
    books.rows.execute("UPDATE credit_notes SET number = 3 WHERE number = 2")
    books.rows.execute("UPDATE credit_note_counters SET last_number = 3")
    return payment_id, ("credit note 3 comes after 1",)


@breaks("credit notes are numbered 1, 2, 3 and so on, up to the counter")
def a_counter_that_ran_ahead(books: Books) -> Named:
    payment_id = _refunded(books)
    books.rows.execute("UPDATE credit_note_counters SET last_number = 5")
    return payment_id, ("the counter is at 5",)


@breaks("every change of status has an event")
def a_status_changed_in_silence(books: Books) -> Named:
    payment_id = books.pay(1)
    books.rows.execute("UPDATE payments SET status = 'processing'")
    return payment_id, ("processing", "pending")


@breaks("the events of a payment follow from one another")
def an_event_that_comes_from_nowhere(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.rows.execute("UPDATE payment_events SET from_status = 'processing' WHERE to_status = 'completed'")
    return payment_id, ("processing", "pending")


@breaks("the events of a payment follow from one another")
def a_version_that_came_before_the_one_before_it(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.rows.execute("UPDATE payment_events SET version = 1 - version")
    return payment_id, ("at version 0",)


@breaks("the events of a payment follow from one another")
def a_beginning_that_has_a_past(books: Books) -> Named:
    payment_id = books.pay(1)
    books.rows.execute("UPDATE payment_events SET from_status = 'processing'")
    return payment_id, ("processing", "nothing")


BLOCKED = "refunds are blocked exactly while a dispute is open or lost"


def disputed(books: Books, **otherwise: object) -> int:
    """A payment whose refunds a lost dispute has blocked since version 2."""
    payment_id = books.confirm(books.pay(1))
    books.raw.dispute(payment_id, **{"status": "lost", **otherwise})
    books.raw.event(payment_id, event="refunds.blocked", version=2, from_status="completed", to_status="completed")
    books.rows.execute("UPDATE payments SET version = 2, is_disputed = true")
    return payment_id


@breaks(BLOCKED)
def a_dispute_that_blocks_nothing(books: Books) -> Named:
    payment_id = disputed(books)
    books.rows.execute("UPDATE payments SET is_disputed = false")
    return payment_id, ("does not block refunds",)


@breaks(BLOCKED)
def refunds_that_no_dispute_blocks(books: Books) -> Named:
    payment_id = disputed(books, status="won")
    return payment_id, ("has no dispute that is open or lost",)


@breaks("a refund that waits for approval was not sent, and nobody approved a refund of their own")
def a_refund_that_was_sent_before_its_approval(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    refund_id = books.raw.refund(payment_id, amount_minor=7, status="requested", requested_by=1)
    books.rows.execute("UPDATE payments SET refund_reserved_minor = 7")
    return payment_id, (f"refund {refund_id} is requested",)


@breaks("a refund that waits for approval was not sent, and nobody approved a refund of their own", without_guard=True)
def a_refund_that_one_person_requested_and_approved(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.drop_constraint("refunds", "ck_refunds_second_person")
    refund_id = books.raw.refund(payment_id, amount_minor=7, status="failed", requested_by=8, approved_by=8)
    return payment_id, (f"refund {refund_id} is failed, requested by user 8, approved by user 8",)


@breaks("a refund by hand succeeded by a transfer of its own", without_guard=True)
def a_refund_by_hand_without_a_transfer(books: Books) -> Named:
    payment_id = books.confirm(books.pay(1))
    books.drop_constraint("refunds", "ck_refunds_by_hand_has_reference")
    refund_id = books.raw.refund(payment_id, amount_minor=7, by_hand=True)
    books.rows.execute("UPDATE payments SET refunded_minor = 7, status = 'completed'")
    return payment_id, (f"refund {refund_id} by hand is succeeded, by no transfer",)


@breaks("no refund is requested or approved while a dispute is open or lost")
def a_refund_requested_while_disputed(books: Books) -> Named:
    payment_id = disputed(books)
    books.raw.event(payment_id, event="refund.requested", version=3, from_status="completed", to_status="completed")
    books.rows.execute("UPDATE payments SET version = 3")
    return payment_id, ("refund.requested at version 3",)


@breaks("no refund is sent while a dispute is open or lost")
def a_refund_sent_while_disputed(books: Books) -> Named:
    payment_id = disputed(books)
    books.raw.refund(payment_id, amount_minor=7, status="failed", sent_at_version=1)
    refund_id = books.raw.refund(payment_id, amount_minor=7, status="failed", sent_at_version=2)
    return payment_id, (f"refund {refund_id} was sent at version 2",)


def test_every_check_has_a_way_to_be_broken_above() -> None:
    assert {promise for promise, _ in BY_ROWS + WITHOUT_GUARDS} == {check.promise for check in audit.CHECKS}
    invariants = {check.invariant for check in audit.CHECKS} - {"people"}
    assert invariants == {f"M{number}" for number in (*range(1, 8), 10, 11, 12)}


def names(breakings: list[tuple[str, Breaking]]) -> list[str]:
    return [breaking.__name__ for _, breaking in breakings]


@pytest.mark.parametrize(("promise", "breaking"), BY_ROWS, ids=names(BY_ROWS))
def test_the_audit_names_the_payment_that_breaks_a_promise_and_no_other(
    promise: str, breaking: Breaking, books: Books
) -> None:
    assert_named_alone(promise, breaking, books)


@pytest.mark.parametrize(("promise", "breaking"), WITHOUT_GUARDS, ids=names(WITHOUT_GUARDS))
def test_the_audit_sees_what_the_database_would_have_refused(
    promise: str, breaking: Breaking, own_books: Books
) -> None:
    assert_named_alone(promise, breaking, own_books)


def assert_named_alone(promise: str, breaking: Breaking, books: Books) -> None:
    (invariant,) = (check.invariant for check in audit.CHECKS if check.promise == promise)
    payment_id, words = breaking(books)
    bystander_id = books.sound(20, "pending", "completed")

    audited = books.audit("--json")

    assert audited.exit_code == 1
    (violation,) = (json.loads(line) for line in audited.stdout.splitlines())
    detail = violation.pop("detail")
    assert violation == {"invariant": invariant, "payment_id": payment_id}
    assert [word for word in words if word not in detail] == []
    assert str(bystander_id) not in detail
    assert "1 violation" in audited.stderr


# False alarms


def test_payments_made_through_the_api_are_sound(books: Books) -> None:
    books.pay(1)
    books.confirm(books.pay(2))
    assert books.people.patient.post(f"/payments/{books.pay(3)}/cancel").status_code == 200
    books.pay(3)

    audited = books.audit()

    assert (audited.exit_code, audited.stdout) == (0, "")
    assert "4 payments audited" in audited.stderr


@pytest.mark.parametrize(
    "story",
    [
        ("pending",),
        ("pending", "processing"),
        ("pending", "completed"),
        ("pending", "processing", "completed", "partially_refunded"),
        ("pending", "completed", "partially_refunded", "partially_refunded", "refunded"),
        ("pending", "failed"),
        ("pending", "cancelled"),
        ("pending", "processing", "expired"),
        ("pending", "expired", "completed"),
        ("pending", "failed", "completed"),
    ],
    ids="-".join,
)
def test_every_story_that_the_contract_allows_is_sound(story: tuple[str, ...], books: Books) -> None:
    books.sound(1, *story)

    audited = books.audit()

    assert (audited.exit_code, audited.stdout) == (0, "")


def test_ended_payments_beside_an_active_one_are_sound(books: Books) -> None:
    for ended in (PaymentStatus.FAILED, PaymentStatus.CANCELLED, PaymentStatus.EXPIRED):
        books.sound(1, "pending", ended)
        books.sound(1, "pending", ended, deleted_at=MOMENT)
    books.sound(1, "pending", "completed", "refunded")
    books.sound(1, "pending")

    audited = books.audit()

    assert (audited.exit_code, audited.stdout) == (0, "")


def test_refunds_in_every_state_are_sound(books: Books) -> None:
    payment_id = books.sound(
        1, "pending", "completed", "partially_refunded", refunded_minor=3_000, refund_reserved_minor=200
    )
    books.raw.refund(payment_id, status="failed", amount_minor=400_000)
    books.rows.execute("UPDATE payments SET refund_reserved_minor = 250")
    books.raw.refund(payment_id, status="pending", amount_minor=50)
    # A part of a refund that was made elsewhere, and all of another, was more than there was room for.
    over_id = books.sound(2, "pending", "completed", "refunded")
    books.raw.refund(over_id, amount_minor=7, excess_minor=7, made_elsewhere=True)
    books.raw.refund(over_id, amount_minor=8, excess_minor=8, made_elsewhere=True, status="pending")

    audited = books.audit()

    assert (audited.exit_code, audited.stdout) == (0, "")


def test_refunds_made_through_the_api_are_sound(books: Books) -> None:
    for consultation_id, amounts in ((1, (10,)), (2, (10, 20)), (3, (5000,)), (4, (4000, 1000))):
        payment_id = books.confirm(books.pay(consultation_id))
        for amount in amounts:
            books.refund(payment_id, amount)

    audited = books.audit()

    assert (audited.exit_code, audited.stdout) == (0, "")


def test_an_audit_beside_a_busy_service_raises_no_false_alarm(books: Books) -> None:
    def be_busy(consultation_id: int) -> None:
        for _ in range(3):
            payment_id = books.pay(consultation_id)
            assert books.people.patient.post(f"/payments/{payment_id}/cancel").status_code == 200
        books.confirm(books.pay(consultation_id))

    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(be_busy, consultation_id) for consultation_id in range(1, 13)]
        while not all(done.done() for done in work):
            assert books.audit().stdout == ""
        for done in work:
            done.result()

    assert books.audit().exit_code == 0
    assert books.rows.count("payments") == 12 * 4


# Many violations


def test_a_payment_alone_is_named_for_everything_that_is_missing(books: Books) -> None:
    payment_id = books.raw.payment(books.patient_id, 1)

    plain, as_json = books.audit(), books.audit("--json")

    lines = plain.stdout.splitlines()
    assert (plain.exit_code, as_json.exit_code) == (1, 1)
    violations = map(json.loads, as_json.stdout.splitlines())
    assert lines == ["{invariant}  payment {payment_id}  {detail}".format(**violation) for violation in violations]
    assert f": {len(lines)} violations;" in plain.stderr
    assert {line.split()[0] for line in lines} == {"M2", "M4", "M6", "M7"}
    assert {line.split()[2] for line in lines} == {str(payment_id)}
    assert sum(line.startswith("M6") for line in lines) == 3


@pytest.mark.parametrize("violations", [1, 2, 3, 4, 5])
def test_more_offenders_than_a_batch_are_named_once_each_in_order(
    violations: int, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment_ids = [books.sound(consultation_id, "pending") for consultation_id in range(1, violations + 1)]
    books.sound(20, "pending")
    books.rows.execute("DELETE FROM tax_records WHERE payment_id <= :last", last=payment_ids[-1])
    monkeypatch.setattr(audit, "BATCH_SIZE", 2)

    named = [json.loads(line)["payment_id"] for line in books.audit("--json").stdout.splitlines()]

    assert named == payment_ids


def test_one_payment_with_more_faults_than_a_batch_has_each_named_once(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment_id = books.sound(1, *["pending"] * 7)
    books.rows.execute("UPDATE payment_events SET from_status = 'failed'")
    event_ids = {str(row["id"]) for row in books.rows.all("SELECT id FROM payment_events")}
    monkeypatch.setattr(audit, "BATCH_SIZE", 2)

    lines = books.audit().stdout.splitlines()

    assert len(lines) == len(event_ids) == 7
    assert {line.split()[4] for line in lines} == event_ids
    assert all(line.startswith(f"M7  payment {payment_id}  ") for line in lines)


def test_what_is_found_does_not_depend_on_the_size_of_a_batch(
    own_books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three keys of one user, each there twice, are three broken promises."""
    payment_id = own_books.sound(1, "pending")
    own_books.drop_constraint("idempotency_keys", "pk_idempotency_keys")
    for key in ("a", "b", "c") * 2:
        own_books.raw.key(own_books.patient_id, payment_id, key=key, operation="confirm")

    found = []
    for batch_size in (1_000, 2, 1):
        monkeypatch.setattr(audit, "BATCH_SIZE", batch_size)
        found.append(own_books.audit().stdout.splitlines())

    assert [len(lines) for lines in found] == [3, 3, 3]
    assert len(set(found[0])) == 3


# Money that waits for somebody to look at it


def test_a_payment_that_needs_review_is_named_with_the_refund_to_make_and_breaks_no_promise(books: Books) -> None:
    """Quarantined money: it came after the payment had been cancelled, and is to go back."""
    payment_id = books.sound(
        1, "pending", "cancelled", received_minor=AMOUNT_MINOR, transaction_id="TXN-late", needs_review=True
    )
    books.sound(2, "pending", "completed")

    plain, as_json = books.audit(), books.audit("--json")

    assert (plain.exit_code, as_json.exit_code) == (0, 0)
    (line,) = plain.stdout.splitlines()
    assert f"payment {payment_id} " in line
    assert "5000" in line
    (told,) = (json.loads(each) for each in as_json.stdout.splitlines())
    assert told["payment_id"] == payment_id


def test_the_refund_to_make_is_what_is_neither_back_nor_on_its_way_back(books: Books) -> None:
    quarantined = {"received_minor": AMOUNT_MINOR, "transaction_id": "TXN-late", "needs_review": True}
    payment_id = books.sound(
        1, "pending", "cancelled", **quarantined, refunded_minor=100_000, refund_reserved_minor=50_050
    )

    audited = books.audit()

    assert audited.exit_code == 0
    (line,) = audited.stdout.splitlines()
    assert line.startswith(f"review  payment {payment_id}  is cancelled, received 5000.00 PHP")
    assert line.endswith("refund to make: 3499.50")


def test_a_payment_is_to_be_reviewed_until_the_refund_that_was_named_is_made(books: Books) -> None:
    payment_id = books.pay(1)
    assert books.people.patient.post(f"/payments/{payment_id}/cancel").status_code == 200
    books.rows.execute(
        f"UPDATE payments SET received_minor = {AMOUNT_MINOR}, transaction_id = 'TXN-late', needs_review = true"
    )

    books.refund(payment_id, 2000)
    assert books.audit().stdout.splitlines()[0].endswith("refund to make: 3000.00")
    books.refund(payment_id, 3000)

    audited = books.audit()
    assert (audited.exit_code, audited.stdout) == (0, "")
    kept = books.rows.one("SELECT status, refunded_minor FROM payments")
    assert kept == {"status": "cancelled", "refunded_minor": AMOUNT_MINOR}


def test_a_dispute_that_is_not_decided_is_named_with_the_time_by_which_to_answer(books: Books) -> None:
    first, second, third = (books.sound(number, "pending", "completed") for number in (1, 2, 3))
    books.raw.dispute(first, status="inquiry", due_at=MOMENT, amount_minor=1_050)
    books.raw.dispute(second, status="inquiry")
    books.raw.dispute(third, status="under_review", due_at=MOMENT)
    books.raw.dispute(third, status="won", due_at=MOMENT)
    books.rows.execute("UPDATE payments SET is_disputed = true WHERE id = :id", id=third)

    audited = books.audit()

    assert audited.exit_code == 0
    by_payment = dict(zip((first, second, third), audited.stdout.splitlines(), strict=True))
    for payment_id, line in by_payment.items():
        assert line.startswith(f"dispute  payment {payment_id}  sandbox dispute-")
    assert by_payment[first].endswith("of 10.50 PHP is inquiry; answer by 2026-01-31 09:30 UTC")
    assert by_payment[second].endswith("answer at once: the gateway names no day")
    assert by_payment[third].endswith("is under review; nothing to answer")
    assert "3 disputed" in audited.stderr


# As its timer runs it


@on_postgresql
def test_as_a_process_it_exits_with_1_where_something_is_broken(books: Books) -> None:
    payment_id = books.pay(1)
    assert "1 payment audited: all promises hold" in books.audit().stderr

    books.rows.execute("DELETE FROM invoices")
    with pytest.raises(CalledProcessError) as found:
        flask(books.url, "payments", "audit", "--json")
    assert found.value.returncode == 1
    assert json.loads(found.value.stdout)["payment_id"] == payment_id


def test_an_audit_that_cannot_look_does_not_say_that_it_found_something() -> None:
    """Whoever wakes people up by exit codes has to tell a broken promise (1) from a database that is away (2)."""
    with app_with("postgresql+psycopg://postgres@127.0.0.1:1/nowhere") as app:
        told = app.test_cli_runner().invoke(args=["payments", "audit"])

    assert (told.exit_code, told.stdout) == (2, "")
    assert told.stderr.splitlines()[-1].startswith("Error: ")
