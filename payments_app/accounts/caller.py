"""The caller: the user that a token names, and what they may access."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from payments_app.accounts.models import Role, Scope
from payments_app.errors import Forbidden, LoginRequired, NotAuthenticated, NotFound, ScopeMissing
from payments_app.i18n.messages import N_

# For so long an expired link still shows what was paid by it.
READABLE_AFTER_EXPIRY = timedelta(days=90)

# Beyond these, no column holds the value of a claim.
_ID_END, _VERSION_END = 2**63, 2**31


class UserRecord(Protocol):
    """A user's current state in the database; the ORM object or a plain row."""

    @property
    def role(self) -> str: ...
    @property
    def token_version(self) -> int: ...
    @property
    def disabled_at(self) -> datetime | None: ...


AnyUserRecord = TypeVar("AnyUserRecord", bound=UserRecord)


class LinkRecord(NamedTuple):
    """What the database says of a payment link and of the patient whose consultation it pays."""

    role: str
    token_version: int
    disabled_at: datetime | None
    expires_at: datetime
    revoked_at: datetime | None
    # Whether the consultation has a payment, in any status.
    has_payment: bool

    def is_usable(self, now: datetime) -> bool:
        """Whether the link gives a token: for paying, or after its end for reading what was paid."""
        return self.disabled_at is None and self.revoked_at is None and (self._is_open(now) or self._is_readable(now))

    def may_change(self, now: datetime) -> bool:
        return self.is_usable(now) and self._is_open(now)

    def _is_open(self, now: datetime) -> bool:
        return now < self.expires_at

    def _is_readable(self, now: datetime) -> bool:
        return self.has_payment and now < self.expires_at + READABLE_AFTER_EXPIRY


class KeyRecord(NamedTuple):
    """The current state of an API key and of its user in the database."""

    role: str
    token_version: int
    disabled_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None

    def is_valid(self, now: datetime) -> bool:
        return (
            self.disabled_at is None and self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
        )


@dataclass(frozen=True, slots=True)
class Caller:
    """The user of a valid token or API key, as of when it was checked. Writes, and reads by staff and by API keys,
    compare it with the database.
    """

    user_id: int
    role: str
    token_version: int
    # Of a payer only: the link that they came by, and the one consultation that it pays.
    link_id: int | None = None
    consultation_id: int | None = None
    # Of a program only: the API key that it sent, and what that key may be used for.
    key_id: int | None = None
    scopes: frozenset[str] = frozenset()

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any]) -> Self:
        """The caller from the claims of a verified token.

        Raises:
            NotAuthenticated: signed with our key, but not one of our access tokens (401).
        """
        try:
            caller = cls(user_id=int(claims["sub"]), role=Role(claims["role"]), token_version=int(claims["ver"]))
            if caller.role == Role.PAYER:
                caller = replace(caller, link_id=int(claims["link"]), consultation_id=int(claims["consultation"]))
        except (KeyError, ValueError, TypeError, OverflowError):
            raise NotAuthenticated from None
        ids = [id_ for id_ in (caller.user_id, caller.link_id, caller.consultation_id) if id_ is not None]
        if not (all(0 < id_ < _ID_END for id_ in ids) and 0 <= caller.token_version < _VERSION_END):
            raise NotAuthenticated
        return caller

    @property
    def is_admin(self) -> bool:
        return self.role == Role.ADMIN

    @property
    def is_user(self) -> bool:
        """Whether the caller came by a login, and not by a payment link or an API key."""
        return self.link_id is None and self.key_id is None

    @property
    def actor(self) -> str:
        """The caller's name in the audit trail, such as ``patient:7``; with the link's id for a payer (``payer:12``),
        and with the key's id for a program (``key:3``).
        """
        if self.key_id is not None:
            return f"key:{self.key_id}"
        return f"{self.role}:{self.user_id if self.link_id is None else self.link_id}"

    @property
    def user_role(self) -> str:
        """The role that the user has in the database: a payer acts for a patient."""
        return Role.PATIENT if self.role == Role.PAYER else self.role

    def require_access(
        self, missing: type[NotFound], *, patient_id: int, consultation_id: int, registered_by: int | None = None
    ) -> None:
        """Check whether the caller may see or change something of a consultation.

        Admins may with all; patients with their own; the booking system with what it has registered; a payer with the
        consultation of their link, and nothing else exists for them.

        Raises:
            NotFound: a payer asks for another consultation; raised as ``missing`` (404).
            Forbidden: it is another patient's, or another system has registered it (403).
        """
        match self.role:
            case Role.ADMIN:
                return
            case Role.PAYER:
                if consultation_id != self.consultation_id:
                    raise missing
            case Role.BOOKING:
                if registered_by != self.user_id:
                    raise Forbidden
            case _:
                if patient_id != self.user_id:
                    raise Forbidden

    def require_link(self, link: LinkRecord | None, *, now: datetime, changes: bool) -> None:
        """What a payer's token claims must still be so; ``changes``: the request is not for reading alone.

        Raises:
            NotAuthenticated: the link was revoked or has expired, its patient was disabled or their tokens ended, or
                the consultation has another patient by now (401).
            Forbidden: the link has expired, and only shows the payment (403).
        """
        link = self.require_unchanged(link)
        if not link.is_usable(now):
            raise NotAuthenticated
        if changes and not link.may_change(now):
            raise Forbidden(
                N_("This payment link has expired: it shows the payment, and nothing can be changed by it.")
            )

    def require_scope(self, scope: Scope | None) -> None:
        """Check that an API key may be used for this; logins and payment links have no scopes.

        Raises:
            ScopeMissing: the key was not given the scope (403).
            LoginRequired: no API key may be used for this (403).
        """
        if self.key_id is None:
            return
        if scope is None:
            raise LoginRequired
        if scope not in self.scopes:
            raise ScopeMissing(scope)

    def require_key(self, key: KeyRecord | None, *, now: datetime) -> None:
        """Require that the API key is still valid, and that its user is as they were.

        Raises:
            NotAuthenticated: the key was revoked or has expired, or its user was disabled (401).
            Forbidden: the user has another role by now (403).
        """
        key = self.require_unchanged(key)
        if not key.is_valid(now):
            raise NotAuthenticated

    def require_unchanged(self, user: AnyUserRecord | None) -> AnyUserRecord:
        """Require that the database still agrees with the token's claims; returns ``user``.

        Raises:
            NotAuthenticated: the user was disabled or their tokens ended (401).
            Forbidden: the user no longer has the role that the token names (403).
        """
        if user is None or user.disabled_at is not None or user.token_version != self.token_version:
            raise NotAuthenticated
        if user.role != self.user_role:
            raise Forbidden
        return user
