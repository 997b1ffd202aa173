"""One word for each thing: names that the project had of its own, and that the field has another word for."""

import ast

import pytest

from tests.support.databases import ROOT

# Only words that are nobody else's: not Text or Money, which are good names for other things.
BANNED = {
    "Abandoned", "Answer", "Ask", "Astray", "AttemptFailed", "Breach", "Crowd", "Deed", "Fate", "KeyTaken",
    "KeyedRequest", "LineUp", "LostRace", "NotBegun", "NotGenuine", "Offender", "OnWordGateway", "OurLogger", "Placed",
    "Recorded", "RefundOrder", "SingleStatement", "TakenIn", "Told", "Wish", "ask_for_review", "broken_constraint",
    "change_of", "changed_data", "creating", "changing", "deed_of", "doubt", "driver_says", "event_log",
    "existing_data", "find_copy", "find_faults", "find_offenders", "flush_and_keep", "follow", "follow_refund",
    "follow_session", "follow_total", "for_all_of", "impatience", "insert_or_nothing", "is_nameless", "json_answer",
    "keep_copy", "keep_final", "keep_session", "lets_through", "locks_rows", "once", "once_committed", "one_of",
    "open_references", "operators_deed", "owned", "owned_for_change", "page_answer", "remember_failed",
    "render_existing", "require_manners", "require_own", "require_still", "run_alone", "take_in", "take_in_hand",
    "take_key", "takes_money", "tell_duplicate", "tell_found", "told", "was_cancelled_at_gateway", "why_not",
}  # fmt: skip
BANNED_MODULES = {
    "access", "answers", "arrival", "backlog", "browsers", "callers", "catalogue", "copies", "engines", "exchange",
    "findings", "keyed", "languages", "on_word", "paging", "process", "reads", "staff", "telling", "texts_of", "tied",
}  # fmt: skip
FOLDERS = ("payments_app", "bench")


def modules() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("module", modules())
def test_no_module_class_or_function_has_a_word_of_its_own(module: str) -> None:
    path = ROOT / module
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    defined = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)}

    assert defined & BANNED == set()
    assert path.stem not in BANNED_MODULES
