"""``python -m tests.support.errors_page``, or ``make errors-page``: writes docs/errors.md from the catalogue."""

from itertools import groupby

from payments_app.api.problem_catalog import CATALOG, Problem
from tests.support.databases import ROOT

PAGE = ROOT / "docs" / "errors.md"

_BEFORE = """\
# Every error

An error response is a problem document (RFC 9457, `application/problem+json`). Its `type` is the path of a page of the
service that explains the problem, with an example: `GET /problems/active-payment-exists` responds with HTML to browsers
and with JSON to programs; `GET /problems` lists all. `title` is the same in every response of a type, and in English;
`detail` and `message` are in the reader's language.

`retryable` answers one question: may the same request, with the same idempotency key, succeed later?

`make errors-page` writes this page from `payments_app/api/problem_catalog.py`; a test compares the two.
"""


def page() -> str:
    parts = [_BEFORE]
    for status, problems in groupby(CATALOG.values(), key=lambda problem: problem.status):
        parts.append(f"## {status}\n")
        parts += ["| error | retryable | meaning | when | what to do |", "|---|---|---|---|---|"]
        parts += [_row(problem) for problem in problems]
        parts.append("")
    return "\n".join(parts)


def _row(problem: Problem) -> str:
    retryable = {True: "yes", False: "no", None: "the response says"}[problem.retryable]
    to_do = problem.action if problem.people is None else f"{problem.action} *People:* {problem.people}"
    return f"| **{problem.title}**<br>`{problem.code}` | {retryable} | {problem.meaning} | {problem.when} | {to_do} |"


if __name__ == "__main__":
    PAGE.write_text(page())
