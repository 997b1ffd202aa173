"""Checks that Schemathesis does not bring along; loaded by its configuration file."""

from typing import Any

import schemathesis
from schemathesis.generation import GenerationMode

INTERNALS = ("Traceback", 'File "', "SELECT ", "INSERT ", "UPDATE ", "sqlalchemy", "psycopg", "sqlite3")

# What a request may be refused for though each of its members is as the document says: a key given twice, a cursor we
# did not issue, somebody we do not know, an amount that is not the fee, or a text beyond the limits, which the document
# can say of numbers alone; and no pattern tells a host or an e-mail address from what is none, or a day from one that
# its month does not have.
OF_ITS_TIME = {
    "idempotency_key",
    "cursor",
    "after",
    "day",
    "patient.email",
    "patient_email",
    "patient_id",
    "amount",
    "fee",
    "payment_method",
    "receipt_url",
    "return_url",
    "url",
}


@schemathesis.check
def refuses_what_fits_only_for_what_is_there(
    _ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """A 422 to a request that fits the document has a reason that no schema could tell."""
    is_positive = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    if response.status_code == 422 and is_positive:
        named = set(response.json().get("errors", {})) - OF_ITS_TIME - _written_as_floats(case.body)
        assert not named or not _is_of_schema(response), f"refused for {named}: {response.text}"


@schemathesis.check
def tells_nothing_of_the_house(
    _ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """Neither SQL nor a stack."""
    if response.headers.get("content-type") == ["application/pdf"]:  # no text
        return
    told = [word for word in INTERNALS if word in response.text]
    assert case.path in ("/openapi.json", "/docs") or not told, f"it tells of {told}"


def _is_of_schema(response: schemathesis.Response) -> bool:
    return bool(response.json()["type"].endswith("/validation-failed"))


def _written_as_floats(body: object) -> set[str]:
    """To JSON Schema 5.0 is an integer; to us it is none."""
    return {name for name, value in body.items() if isinstance(value, float)} if isinstance(body, dict) else set()
