"""The caller: the user that a token names, and what they may access."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, Self, TypeVar

from payments_app.accounts.models import Role
from payments_app.errors import Forbidden, NotAuthenticated, NotFound


class UserRecord(Protocol):
    """A user's current state in the database; the ORM object or a plain row."""

    @property
    def role(self) -> str: ...
    @property
    def token_version(self) -> int: ...
    @property
    def disabled_at(self) -> datetime | None: ...


AnyUserRecord = TypeVar("AnyUserRecord", bound=UserRecord)


@dataclass(frozen=True, slots=True)
class Caller:
    """The user of a valid token, with the token's claims. Writes and reads by staff compare them with the database."""

    user_id: int
    role: str
    token_version: int
    # Of a payer only: the link that they came by, and the one consultation that it pays.
    link_id: int | None = None
    consultation_id: int | None = None

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any]) -> Self:
        """The caller from the claims of a verified token.

        Raises:
            NotAuthenticated: signed with our key, but not one of our access tokens (401).
        """
        try:
            caller = cls(user_id=int(claims["sub"]), role=Role(claims["role"]), token_version=int(claims["ver"]))
        except (KeyError, ValueError, TypeError):
            raise NotAuthenticated from None
        if not (0 < caller.user_id < 2**63 and 0 <= caller.token_version < 2**31):  # the columns' limits
            raise NotAuthenticated
        return caller

    @property
    def is_admin(self) -> bool:
        return self.role == Role.ADMIN

    @property
    def actor(self) -> str:
        """The caller's name in the audit trail, such as ``patient:7``."""
        return f"{self.role}:{self.user_id}"

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
