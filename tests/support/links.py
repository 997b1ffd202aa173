"""Payment links, and those who have one."""

from typing import Any

from tests.support.client import ApiResponse, client_of
from tests.support.people import People, Person
from tests.support.rows import Rows


class Payer(Person):
    """Somebody with a payment link; ``link_token`` is the last part of its address."""

    def __init__(self, people: People, consultation_id: int, link: dict[str, Any]) -> None:
        self._people = people
        self.consultation_id = consultation_id
        self.link_id: int = link["id"]
        self.link_token: str = link["url"].rpartition("/")[2]
        token = exchange(people, self.link_token).json["token"]
        super().__init__(client_of(people.app), people.patient.id, people.patient.email, token)

    @property
    def link_path(self) -> str:
        return f"/consultations/{self.consultation_id}/links/{self.link_id}"

    def revoke(self) -> ApiResponse:
        return self._people.admin.send("DELETE", self.link_path)

    def expire(self, rows: Rows, *, days_ago: float = 0) -> None:
        """Let the link have ended so many days ago, and a moment."""
        since = f"-{days_ago * 86_400 + 1} seconds"
        if rows.is_sqlite:
            ended = f"strftime('%Y-%m-%d %H:%M:%f000', 'now', '{since}')"
            begun = "'2020-01-01 00:00:00.000000'"
        else:
            ended, begun = f"now() + interval '{since}'", "timestamptz '2020-01-01'"
        rows.execute(
            f"UPDATE payment_links SET created_at = {begun}, expires_at = {ended} WHERE id = :id", id=self.link_id
        )


def make_link(people: People, consultation_id: int = 5, **members: Any) -> ApiResponse:
    return people.admin.post(f"/consultations/{consultation_id}/links", members)


def exchange(people: People, token: Any, **options: Any) -> ApiResponse:
    return people.anonymous().post("/api/v1/payment-links/exchange", json={"token": token}, **options)


def payer_of(people: People, consultation_id: int = 5, **members: Any) -> Payer:
    """Somebody who has opened a new link of the consultation, which is the patient's."""
    made = make_link(people, consultation_id, **members)
    assert made.status_code == 201, made.text
    return Payer(people, consultation_id, made.json["data"])
