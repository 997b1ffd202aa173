"""Who is asking: what a token says of its bearer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from payments_app.accounts.models import Role, User
from payments_app.errors import NotAuthenticated


@dataclass(frozen=True, slots=True)
class Caller:
    """The bearer of a valid token, as the token describes them. Writes and staff's reads check it with the database."""

    user_id: int
    role: str
    token_version: int

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any]) -> Self:
        """Read a verified token.

        Raises:
            NotAuthenticated: signed with our key, but none of our access tokens (401).
        """
        try:
            return cls(user_id=int(claims["sub"]), role=Role(claims["role"]), token_version=int(claims["ver"]))
        except (KeyError, ValueError, TypeError):
            raise NotAuthenticated from None

    @property
    def is_admin(self) -> bool:
        return self.role == Role.ADMIN

    @property
    def actor(self) -> str:
        """The name under which their deeds stand in the audit trail, such as ``patient:7``."""
        return f"{self.role}:{self.user_id}"

    def is_still(self, user: User | None) -> bool:
        """Whether the user behind the token is enabled and has not had their tokens ended."""
        return user is not None and user.disabled_at is None and user.token_version == self.token_version
