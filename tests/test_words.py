"""One word for each thing: names that the project used to have, and for which the field has another word."""

import ast
import re

import pytest

from tests.support.databases import ROOT

# Only words that are nobody else's: not Text or Money, which are good names for other things.
BANNED = {
    "Abandoned", "Answer", "Arm", "Ask", "Astray", "AttemptFailed", "BREAKAGES", "Breach", "Breakage", "Clinic",
    "Crowd", "DOORS", "Deed", "Fate", "Front", "House", "KeptRows", "KeyTaken", "KeyedRequest", "LineUp", "LostRace",
    "NotBegun", "NotGenuine", "Offender", "OnWordGateway", "OurLogger", "Placed", "Recorded", "RefundOrder",
    "SABOTAGES", "Sabotage", "SingleStatement", "TakenIn", "Told", "WAYS", "Wish", "World", "arms", "ask_for_review",
    "assert_agreement", "breakage", "broken_constraint", "card_shop", "change_of", "changed_data", "changing",
    "creating", "database_shop", "deed_of", "door", "doors", "doubt", "driver_says", "event_log", "every_door",
    "existing_data", "fate", "find_copy", "find_faults", "find_offenders", "flush_and_keep", "follow", "follow_refund",
    "follow_session", "follow_total", "for_all_of", "front_of", "house", "impatience", "insert_or_nothing",
    "is_nameless", "json_answer", "keep_copy", "keep_final", "keep_session", "kept_houses", "knock", "knock_with",
    "knock_with_text", "lets_through", "locks_rows", "news_of", "offenders", "once", "once_committed", "one_of",
    "open_references", "open_shop", "operators_deed", "own_shop", "owned", "owned_for_change", "page_answer",
    "patient_shop", "postgresql_shop", "remember_failed", "render_existing", "require_manners", "require_own",
    "require_still", "run_alone", "sabotage", "session_front", "session_shop", "take_in", "take_in_hand", "take_key",
    "takes_money", "tell_duplicate", "tell_found", "told", "told_choices", "was_cancelled_at_gateway", "why_not",
    "world",
}  # fmt: skip
BANNED_MODULES = {
    "access", "agreement", "answers", "arms", "arrival", "asking", "backlog", "breakages", "browsers", "callers",
    "catalogue", "clinic", "copies", "doors", "engines", "exchange", "findings", "house", "keyed", "languages",
    "line_up", "manners", "on_word", "paging", "process", "reads", "refusals", "sabotage", "scenes", "shop", "staff",
    "telling", "test_sabotage", "texts_of", "tied", "ways", "worlds",
}  # fmt: skip
FOLDERS = ("payments_app", "bench", "tests")


def modules() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def names_in(tree: ast.AST) -> set[str]:
    """The names of all classes, functions and parameters, and of the constants of the module."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id.isupper():
            names.add(node.id)
    return names


@pytest.mark.parametrize("module", modules())
def test_no_module_class_function_or_parameter_has_a_word_of_its_own(module: str) -> None:
    path = ROOT / module
    text = path.read_text()

    # Few modules have one of these words at all, and need not be parsed otherwise.
    if BANNED & set(re.findall(r"\w+", text)):
        assert names_in(ast.parse(text)) & BANNED == set()
    assert path.stem not in BANNED_MODULES
