"""The pages that explain problems, at ``/problems``, without a token: a problem's ``type`` is the path of its page.

HTML for browsers, JSON for programs. For developers, so in English.
"""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, json, make_response, render_template, request

from payments_app.api import examples
from payments_app.api.blueprint import json_response
from payments_app.api.problem_catalog import CATALOG, Problem
from payments_app.api.response_headers import page_policy
from payments_app.errors import NotFound

# Seconds. The pages only change with a release.
_TTL_SECONDS = 300

blueprint = Blueprint("problem_pages", __name__, url_prefix="/problems", template_folder="templates")


@blueprint.get("", strict_slashes=False)
def list_problems() -> Response:
    """Every problem with its title and status."""
    problems = list(CATALOG.values())
    return _page(
        lambda: render_template("problems.html", problems=problems),
        {"problems": [_summary(problem) for problem in problems]},
    )


@blueprint.get("/<code>")
def show_problem(code: str) -> Response:
    """What a problem means, when it happens and what to do.

    Raises:
        NotFound: no problem has this code (404).
    """
    problem = CATALOG.get(code)
    if problem is None:
        raise NotFound
    example = examples.PROBLEMS[code]
    return _page(
        lambda: render_template("problem.html", problem=problem, example=json.dumps(example, indent=2)),
        {**_summary(problem), **_explanation(problem), "example": example},
    )


def _summary(problem: Problem) -> dict[str, Any]:
    return {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "retryable": problem.retryable,
    }


def _explanation(problem: Problem) -> dict[str, str]:
    explanation = {
        "meaning": problem.meaning,
        "when": problem.when,
        "what_to_do": problem.action,
        "for_people": problem.people,
    }
    return {name: text for name, text in explanation.items() if text is not None}


def _page(render_html: Callable[[], str], body: dict[str, Any]) -> Response:
    """HTML if the reader prefers it to JSON, as browsers do; else JSON."""
    accepted = request.accept_mimetypes
    if accepted["text/html"] > accepted["application/json"]:
        response = make_response(render_html())
        response.headers["Content-Security-Policy"] = page_policy()
    else:
        response = json_response(body)
    response.headers["Vary"] = "Accept"
    response.cache_control.public = True
    response.cache_control.max_age = _TTL_SECONDS
    response.add_etag()
    if "If-Match" not in request.headers:  # a condition for changes, which would make a 412 of this page
        response.make_conditional(request)
    return response
