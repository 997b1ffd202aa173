"""The contract of payments on a gateway's own page, a second time: rows of sessions, and money by any of them."""

from collections.abc import Iterator

from tests.prove.model.pages import Manners, Page, PagedPayment, PagedRefund, PagesAccount, Row
from tests.prove.model.records import ACTIVE, PAID, REFUNDABLE, UNPAID, Refusal
from tests.prove.model.stripe_account import Weather


class PagesModel:
    def __init__(self, gateway: PagesAccount) -> None:
        self.gateway, self.manners = gateway, gateway.manners
        self.payments: list[PagedPayment] = []
        self._heard: set[str] = set()

    def active(self, consultation: int) -> PagedPayment | None:
        of_it = (each for each in self.payments if each.consultation == consultation and each.status in ACTIVE)
        return next(of_it, None)

    def create(self, consultation: int, amount: int) -> PagedPayment:
        if self.active(consultation) is not None:
            raise Refusal(409, "active-payment-exists")  # M1
        payment = PagedPayment(consultation, amount)
        self.payments.append(payment)
        return payment

    # Checkout

    def checkout(self, payment: PagedPayment, weather: Weather) -> Page:
        """The page that is given out; a second attempt if the first one's session has ended."""
        for _ in range(2):
            page = self._attempt(payment, weather)
            if page is not None:
                return page
        raise Refusal(503, "gateway-unavailable")

    def _attempt(self, payment: PagedPayment, weather: Weather) -> Page | None:
        if payment.status not in UNPAID:
            raise Refusal(409, "invalid-transition")
        row = _open_row(payment)
        if row is not None:
            page, status = _page_of(row), self.gateway.look_up(_page_of(row), weather)
            if status is None:
                raise Refusal(503, "gateway-unavailable")
            is_current = True
        else:
            opened = self._open(payment, weather)
            if opened is None:
                return None
            # What is asked again under the same key is answered as it was the first time.
            (page, is_current), status = opened, "open"
        if status != "open" and not (status == "processing" and self.manners.can_be_continued):
            self._apply(payment, page, status, weather)
            if status == "expired" and payment.status in UNPAID:
                return None
            raise Refusal(409, "invalid-transition")
        if not is_current:
            self.gateway.end(page, weather)
            raise Refusal(409, "version-conflict")
        return page

    def _open(self, payment: PagedPayment, weather: Weather) -> tuple[Page, bool] | None:
        """The page that was opened, and whether its session has not ended; None if it was refused, and has to be opened
        anew.
        """
        if payment.status != "pending":  # money is on its way by another one
            raise Refusal(409, "invalid-transition")
        row = next((each for each in payment.rows if each.status == "opening"), None)
        if row is not None and (row.is_over or not self.manners.remembers_keys):
            row.status = "expired" if row.is_over else "lost"
            row = None
        is_new = row is None
        if row is None:
            row = Row(max((each.number or 0 for each in payment.rows), default=0) + 1, "opening")
            payment.rows.append(row)
        page = self.gateway.open(payment, row.number or 0, weather)
        if page == "refused":
            row.status = "cancelled"
            if is_new:
                raise Refusal(502, "gateway-refused")
            return None
        if not isinstance(page, Page):
            raise Refusal(503, "gateway-unavailable")
        return page, _name(payment, row, page)

    # Money

    def _apply(self, payment: PagedPayment, page: Page, status: str, weather: Weather) -> None:
        """What the gateway says of a session."""
        _note(payment, page, status)
        newer: Row | None = None
        if status == "succeeded":
            newer = self._receive(payment, str(page.transaction))
        elif status == "processing" and payment.status == "pending":
            payment.status = "processing"
            payment.version += 1
            newer = _newer_row(payment)
            newer = None if newer is not None and newer.page is page else newer
        elif status == "expired" and payment.status == "processing" and not _has_other(payment, page):
            payment.status = "failed"
            payment.version += 1
        self._end_newer(payment, newer, weather)

    def _receive(self, payment: PagedPayment, transaction: str) -> Row | None:
        if payment.received:
            if transaction not in (payment.transaction, *payment.paid_again):
                payment.paid_again.add(transaction)
                payment.needs_review = payment.review_sticky = True  # only staff end that
                payment.version += 1
            return None
        is_free = payment.status in ("expired", "failed") and self.active(payment.consultation) is None
        is_completed = payment.status in UNPAID or is_free
        if is_completed:
            payment.status = "completed"
        else:
            payment.needs_review = True
        payment.transaction, payment.received = transaction, payment.amount
        payment.version += 1
        return _newer_row(payment) if is_completed else None

    def _end_newer(self, payment: PagedPayment, row: Row | None, weather: Weather) -> None:
        """At the gateway, so that nobody pays by it too; silence leaves it open."""
        if row is None:
            return
        page = _page_of(row)
        status = self.gateway.end(page, weather)
        if status == "expired":
            row.status = "cancelled"
        elif status == "succeeded":
            self._apply(payment, page, status, weather)

    def confirm(self, payment: PagedPayment, transaction: str, weather: Weather) -> bool:
        """Whether it is a replay."""
        if payment.status in PAID and payment.transaction == transaction:
            return True
        if payment.status not in (*UNPAID, "expired", "failed"):
            raise Refusal(409, "invalid-transition")
        if payment.received:
            raise self._late(payment)
        if weather.is_silent:
            raise Refusal(503, "gateway-unavailable")
        pages = [each for each in self.gateway.pages if each.payment is payment and each.money == "came"]
        if transaction not in [each.transaction for each in pages]:
            raise Refusal(402, "payment-not-verified")
        newer = self._receive(payment, transaction)
        self._end_newer(payment, newer, weather)
        if payment.status not in PAID:
            raise self._late(payment)
        return False

    def _late(self, payment: PagedPayment) -> Refusal:
        is_taken = self.active(payment.consultation) is not None
        return Refusal(409, "active-payment-exists" if is_taken else "invalid-transition")

    def hear(self, event_id: str, said: str, page: Page, weather: Weather) -> int:
        """The status of the answer. PayMongo is asked again, and may not answer."""
        payment = page.payment
        if self.manners.events_are_read_again and weather.is_silent:
            return 503
        if event_id in self._heard:
            return 200
        self._heard.add(event_id)
        kind, _, status = said.partition(" ")
        if kind == "session":
            self._apply(payment, page, status, weather)
        elif said == "money came":
            self._end_newer(payment, self._receive(payment, str(page.transaction)), weather)
        elif said == "money on its way" and payment.status == "pending":
            payment.status = "processing"
            payment.version += 1
        return 200

    def refresh(self, payment: PagedPayment, weather: Weather) -> None:
        row = _open_row(payment)
        if row is None or payment.status not in UNPAID:
            return
        status = self.gateway.look_up(_page_of(row), weather)
        if status not in (None, "open"):
            self._apply(payment, _page_of(row), str(status), weather)

    # Ends

    def cancel(self, payment: PagedPayment, weather: Weather) -> None:
        if payment.status != "pending":
            raise Refusal(409, "invalid-transition")
        self._end(payment, _open_row(payment), "cancelled", weather)

    def _end(self, payment: PagedPayment, row: Row | None, to: str, weather: Weather) -> None:
        if row is not None:
            status = self.gateway.end(_page_of(row), weather)
            if status is None:
                raise Refusal(503, "gateway-unavailable")
            if status != "expired":
                self._apply(payment, _page_of(row), status, weather)
                raise Refusal(409, "invalid-transition")
        for each in payment.rows:
            each.status = "lost" if each.status == "opening" else "cancelled" if each is row else each.status
        payment.status = to
        payment.version += 1

    def expire(self, weather: Weather) -> None:
        for payment in self.payments:
            if payment.status == "pending" and payment.is_overdue and not _may_go_on(payment, self.manners):
                self._expire(payment, weather)
        for payment in self.payments:
            if payment.status in PAID:
                self._end_newer(payment, _newer_row(payment), weather)

    def _expire(self, payment: PagedPayment, weather: Weather) -> None:
        try:
            with_money = self._with_money(_older_rows(payment), weather)
            if with_money is not None:
                self._apply(payment, with_money, self.manners.status(with_money), weather)
            if payment.status == "pending":
                self._end(payment, _open_row(payment), "expired", weather)
        except Refusal:
            return

    def _with_money(self, rows: list[Row], weather: Weather) -> Page | None:
        """The first of the older ones by which money came, else by which it is on its way."""
        statuses = [(self.gateway.look_up(_page_of(row), weather), _page_of(row)) for row in rows]
        if any(status is None for status, _ in statuses):
            raise Refusal(503, "gateway-unavailable")
        for wanted in ("succeeded", "processing"):
            for status, page in statuses:
                if status == wanted:
                    return page
        return None

    def resume(self, weather: Weather) -> None:
        for payment in self.payments:
            for refund in payment.refunds:
                if refund.status == "unknown":
                    self._resume_refund(payment, refund, weather)
            if payment.status == "processing" and not weather.is_silent:
                self._resume(payment, weather)

    def _resume(self, payment: PagedPayment, weather: Weather) -> None:
        row, older = _open_row(payment), _older_rows(payment)
        if row is None and older:
            row, older = older[-1], older[:-1]
        with_money = self._with_money(older, weather)
        if with_money is not None and self.manners.status(with_money) == "succeeded":
            self._apply(payment, with_money, "succeeded", weather)
            return
        if row is None:
            return
        page, status = _page_of(row), self.manners.status(_page_of(row))
        if status == "succeeded" or (status == "expired" and not older):
            self._apply(payment, page, status, weather)
            return
        is_over = payment.is_overdue and not (row.status == "open" and _may_go_on(payment, self.manners))
        if with_money is None and (status == "expired" or (status == "open" and is_over)):
            self._end(payment, row, "failed", weather)

    # Refunds

    def refund(self, payment: PagedPayment, amount: int | None, weather: Weather) -> PagedRefund:
        if payment.status not in REFUNDABLE and not (payment.needs_review and payment.received):
            raise Refusal(409, "invalid-transition")
        if not 0 < (amount or payment.left) <= payment.left:
            raise Refusal(422, "refund-exceeds-balance")  # M3
        refund = PagedRefund(amount or payment.left, "unknown", weather is not Weather.BROKEN)
        payment.refunds.append(refund)
        payment.version += 1
        if not weather.is_silent:
            self._settle(payment, refund)
        return refund

    def _resume_refund(self, payment: PagedPayment, refund: PagedRefund, weather: Weather) -> None:
        """It is looked up; one that was never made is sent again only if the gateway knows its key."""
        if weather.is_silent or not (refund.is_at_gateway or self.manners.remembers_keys):
            return
        refund.is_at_gateway = True
        self._settle(payment, refund)

    def _settle(self, payment: PagedPayment, refund: PagedRefund) -> None:
        refund.status = "succeeded"
        payment.version += 1
        if payment.status in REFUNDABLE:
            payment.status = "refunded" if payment.refunded == payment.received else "partially_refunded"
        if payment.refunded == payment.received:
            payment.needs_review = payment.review_sticky


def _open_row(payment: PagedPayment) -> Row | None:
    return next((row for row in payment.rows if row.status == "open"), None)


def _newer_row(payment: PagedPayment) -> Row | None:
    row = _open_row(payment)
    return row if row is not None and (row.number or 0) > 1 else None


def _older_rows(payment: PagedPayment) -> list[Row]:
    return [row for row in payment.rows if row.page is not None and row.status not in ("open", "succeeded")]


def _has_other(payment: PagedPayment, page: Page) -> bool:
    """One that the gateway can be asked about: then the money may be on its way by that."""
    return any(row.page not in (None, page) for row in payment.rows)


def _may_go_on(payment: PagedPayment, manners: Manners) -> bool:
    """Its open session has an end, which has not come."""
    row = _open_row(payment)
    return manners.sessions_have_an_end and row is not None and row.number is not None and not row.is_over


def _page_of(row: Row) -> Page:
    assert row.page is not None
    return row.page


def _note(payment: PagedPayment, page: Page, status: str) -> None:
    """The row of a session that the gateway tells of; one that we do not know gets a row, unless it would be the second
    that is open.
    """
    status = "open" if status == "processing" else status
    row = next((each for each in payment.rows if each.page is page), None)
    if row is None:
        if status != "open" or _open_row(payment) is None:
            payment.rows.append(Row(None, status, page))
    elif row.status == "open":
        row.status = status


def _name(payment: PagedPayment, row: Row, page: Page) -> bool:
    """The gateway has named the session of a row that was being opened; an event may have named it before."""
    before = next((each for each in payment.rows if each.page is page), None)
    if before is not None:
        payment.rows.remove(before)
        row.status = before.status
    row.page = page
    if row.status == "opening":
        row.status = "open" if _open_row(payment) is None else "cancelled"
    return row.status in ("open", "opening")


def rows_of(payments: list[PagedPayment]) -> Iterator[tuple[int, int | None, str, str | None]]:
    """As the table has them."""
    for payment in payments:
        for row in payment.rows:
            yield payment.id, row.number, row.status, None if row.page is None else row.page.reference
