"""Payment links in the database: made, listed, revoked, and found by their token."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from payments_app import clock
from payments_app.accounts.caller import Caller, LinkRecord
from payments_app.accounts.models import PaymentLink, Role, User
from payments_app.accounts.repository import require_valid, select_link
from payments_app.consultations.models import Consultation
from payments_app.consultations.repository import require_accessible
from payments_app.db.base import dialect_insert
from payments_app.db.statement import DirectStatement
from payments_app.db.transaction import after_commit, read_transaction, write_transaction
from payments_app.errors import ConsultationClosed, NotFound
from payments_app.observability import metrics
from payments_app.observability.logging import get_logger
from payments_app.pagination import Page

log = get_logger(__name__)

TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLink:
    """A link to be made. ``return_url``: where its page leads on to, or None."""

    consultation_id: int
    return_url: str | None
    lifetime: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedLink:
    """A link that was found by its token, and the patient whose consultation it pays."""

    link_id: int
    consultation_id: int
    return_url: str | None
    # It has expired: it shows the payment, and nothing can be changed by it.
    read_only: bool
    patient_id: int
    token_version: int


def create(new: NewLink, *, caller: Caller) -> tuple[PaymentLink, str]:
    """Make a link. The second value is its token, 43 URL-safe characters, which is kept nowhere.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        ConsultationNotFound: no such consultation (404).
        Forbidden: another system has registered it (403).
        ConsultationClosed: nobody can pay it any more (409).
    """
    token = secrets.token_urlsafe(TOKEN_BYTES)
    return _insert(new, hash_of(token), caller=caller), token


def hash_of(token: str) -> str:
    """SHA-256 in hexadecimal. A token has 256 random bits, so that nothing slower is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


@write_transaction
def _insert(session: Session, new: NewLink, token_hash: str, *, caller: Caller) -> PaymentLink:
    require_valid(session, caller)
    consultation = _get_accessible(session, new.consultation_id, caller)
    if consultation.closed_at is not None:
        raise ConsultationClosed
    now = clock.now()
    # If an earlier attempt committed and its confirmation was lost, its row is ours: nobody else has this token.
    row = dialect_insert(session, PaymentLink).values(
        consultation_id=new.consultation_id,
        token_hash=token_hash,
        return_url=new.return_url,
        created_by=caller.user_id,
        created_at=now,
        expires_at=now + new.lifetime,
    )
    session.execute(row.on_conflict_do_nothing(index_elements=[PaymentLink.token_hash]))
    link = session.scalars(select(PaymentLink).where(PaymentLink.token_hash == token_hash)).one()
    after_commit(link, lambda: _record_created(link.id, new.consultation_id, caller))
    return link


@read_transaction
def list_page(
    session: Session, consultation_id: int, *, caller: Caller, before_id: int | None, per_page: int
) -> Page[PaymentLink]:
    """The links of a consultation, newest first, expired and revoked ones too.

    Raises:
        ConsultationNotFound: no such consultation (404).
        Forbidden: another system has registered it (403).
    """
    _get_accessible(session, consultation_id, caller)
    wanted = select(PaymentLink).where(PaymentLink.consultation_id == consultation_id)
    if before_id is not None:
        wanted = wanted.where(PaymentLink.id < before_id)
    return Page.cut(session.scalars(wanted.order_by(PaymentLink.id.desc()).limit(per_page + 1)).all(), per_page)


@write_transaction
def revoke(session: Session, consultation_id: int, link_id: int, *, caller: Caller) -> None:
    """End a link and the tokens that it gave. Again, it has no effect.

    It waits for the transactions of requests by that link, which lock its row: after it, none of them has any effect.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        ConsultationNotFound: no such consultation (404).
        Forbidden: another system has registered it (403).
        NotFound: the consultation has no such link (404).
    """
    require_valid(session, caller)
    _get_accessible(session, consultation_id, caller)
    of_link = (PaymentLink.id == link_id, PaymentLink.consultation_id == consultation_id)
    ended = update(PaymentLink).where(*of_link, PaymentLink.revoked_at.is_(None)).values(revoked_at=clock.now())
    if session.execute(ended.returning(PaymentLink.id)).first() is not None:
        link = session.get_one(PaymentLink, link_id)
        after_commit(link, lambda: _record_revoked(link_id, consultation_id, caller))
    elif session.scalar(select(PaymentLink.id).where(*of_link)) is None:
        raise NotFound


@read_transaction
def find_by_token(session: Session, token: str) -> OpenedLink | None:
    """The link of a token, if it still pays its consultation or shows what was paid."""
    row = next(iter(_BY_TOKEN.rows(session, {"token_hash": hash_of(token)})), None)
    if row is None:
        return None
    link_id, consultation_id, return_url, patient_id = row[-4:]
    link = LinkRecord(*row[:-4])
    now = clock.now()
    if link.role != Role.PATIENT or not link.is_usable(now):
        return None
    return OpenedLink(
        link_id=link_id,
        consultation_id=consultation_id,
        return_url=return_url,
        read_only=not link.may_change(now),
        patient_id=patient_id,
        token_version=link.token_version,
    )


_BY_TOKEN = DirectStatement(
    select_link(
        PaymentLink.token_hash == bindparam("token_hash", type_=PaymentLink.token_hash.type),
        more=(PaymentLink.id, PaymentLink.consultation_id, PaymentLink.return_url, User.id),
    )
)


def _get_accessible(session: Session, consultation_id: int, caller: Caller) -> Consultation:
    return require_accessible(session.get(Consultation, consultation_id), caller)


def _record_created(link_id: int, consultation_id: int, caller: Caller) -> None:
    metrics.PAYMENT_LINKS.labels("created").inc()
    log.info("Payment link: created", link_id=link_id, consultation_id=consultation_id, actor=caller.actor)


def _record_revoked(link_id: int, consultation_id: int, caller: Caller) -> None:
    metrics.PAYMENT_LINKS.labels("revoked").inc()
    log.info("Payment link: revoked", link_id=link_id, consultation_id=consultation_id, actor=caller.actor)


def state_of(link: PaymentLink, now: datetime) -> str:
    """``open``, ``expired`` or ``revoked``."""
    if link.revoked_at is not None:
        return "revoked"
    return "open" if now < link.expires_at else "expired"
