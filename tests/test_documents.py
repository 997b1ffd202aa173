"""README and docs/ name files, identifiers, links, make targets, commands and settings that exist.

What is compared is what stands in code, which is between backticks, in a fence or indented by four spaces. Another
layout of the tree changes nothing here: a name is looked up in the tree as it is.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePath

import click
import pytest

from tests.support.apps import app_with
from tests.support.client import client_of
from tests.support.databases import ROOT

DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

# Files of others, which no tree of ours has.
FOREIGN_FILES = {"config.yml", "nginx.conf", "postgresql.auto.conf", "payments-api.d.ts"}

# Names of others, which only the documents mention: settings of OpenSSL, glibc, PostgreSQL, etcd and Patroni, Patroni's
# metrics, and a module.
FOREIGN_NAMES = {
    "SSL_CERT_FILE", "MALLOC_ARENA_MAX", "primary_conninfo", "archive_timeout", "recovery_target_time",
    "restore_command", "ETCDCTL_API", "maximum_lag_on_failover", "standby_cluster", "patroni_sync_standby",
    "gunicorn_h1c",
}  # fmt: skip

# Suffixes that make a word the name of a file.
SUFFIXES = {
    ".cfg", ".conf", ".css", ".d.ts", ".html", ".ini", ".js", ".json", ".mako", ".md", ".mo", ".po", ".py", ".service",
    ".socket", ".sql", ".svg", ".timer", ".toml", ".txt", ".yaml", ".yml",
}  # fmt: skip

FENCE = re.compile(r"^( *)```[^\n]*\n(.*?)^ *```", flags=re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")

by_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


@cache
def tree() -> frozenset[PurePath]:
    """Every file and folder of the project, without what git ignores."""
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]

    def walk(folder: Path) -> Iterator[PurePath]:
        for path in folder.iterdir():
            if path.name == ".git" or any(PurePath(path.name).match(pattern) for pattern in ignored):
                continue
            yield path.relative_to(ROOT)
            if path.is_dir() and not path.is_symlink():
                yield from walk(path)

    return frozenset(walk(ROOT))


@cache
def sources() -> dict[PurePath, str]:
    """The text of every file but the documents and what measures have left."""
    prose = {".md", ".mo", ".svg"}
    return {
        path: (ROOT / path).read_text(errors="replace")
        for path in tree()
        if (ROOT / path).is_file() and path.suffix not in prose and ROOT / path != Path(__file__)
    }


@cache
def words() -> frozenset[str]:
    return frozenset(word for text in sources().values() for word in re.findall(r"\w+", text))


@cache
def schema_names() -> frozenset[str]:
    """The schemas of the OpenAPI document, some of which are named when it is made."""
    with app_with("sqlite:///unused.db") as app:
        return frozenset(client_of(app).get("/openapi.json").json["components"]["schemas"])


@cache
def prose_of(document: Path) -> str:
    return FENCE.sub("", document.read_text())


@cache
def spans_of(document: Path) -> list[str]:
    return SPAN.findall(prose_of(document))


@cache
def code_of(document: Path) -> list[str]:
    """What stands in code: each span, and each line of a fence or of an indented block."""
    blocks = [block for _, block in FENCE.findall(document.read_text())]
    indented = re.findall(r"^    (?! )(.*)$", prose_of(document), flags=re.MULTILINE)
    return [*spans_of(document), *(line for block in blocks for line in block.splitlines()), *indented]


# Files and folders.


@cache
def files_named(name: str) -> list[PurePath]:
    """What a document means by a path, which may begin at any folder, or by the bare name of a file."""
    pattern = re.sub(r"<[^>]*>", "*", name.rstrip("/"))
    return [path for path in tree() if path.match(pattern)]


def is_path(word: str) -> bool:
    """Whether a word in code is meant as a file or folder of the tree."""
    if not re.fullmatch(r"[\w.*<>/-]+", word) or "..." in word or word.startswith(("/", "-")):
        return False
    if word.partition("/")[0] == "instance":  # made when something is run
        return False
    has_suffix = any(word.endswith(suffix) and word != suffix for suffix in SUFFIXES)
    return has_suffix or (word.endswith("/") and word.count("/") == 1) or top_of(word) is not None


def top_of(word: str) -> PurePath | None:
    """The folder at the root with which a word begins."""
    top, slash, _ = word.partition("/")
    return PurePath(top) if slash and PurePath(top) in tree() and (ROOT / top).is_dir() else None


@by_document
def test_files_are_there(document: Path) -> None:
    code = [word for line in code_of(document) for word in re.split(r"[\s=\"'`,;]+", line)]
    named = {word.partition("::")[0] for word in code if is_path(word.partition("::")[0])}
    assert {name for name in named - FOREIGN_FILES if not files_named(name)} == set()


def test_documents_that_the_sources_name_are_there() -> None:
    named = {
        (str(path), document)
        for path, text in sources().items()
        for document in re.findall(r"(?<![\w/.-])(?:docs/[\w/-]+|README)\.md", text)
    }

    assert len(named) > 20
    assert [(path, document) for path, document in sorted(named) if not files_named(document)] == []


@by_document
def test_tests_are_there(document: Path) -> None:
    named = re.findall(r"([\w/]+\.py)::(\w+)", document.read_text())

    assert [(path, name) for path, name in named if name not in defined_in(PurePath(path))] == []


@by_document
def test_links_lead_somewhere(document: Path) -> None:
    def is_broken(link: str) -> bool:
        if re.match(r"[a-z]+:", link):
            return False
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        return not target.exists() or (anchor != "" and anchor not in anchors_of(target))

    assert [link for link in LINK.findall(prose_of(document)) if is_broken(link)] == []


@cache
def anchors_of(document: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ +(.*?) *$", prose_of(document), flags=re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


# Identifiers.


@cache
def defined_in(path: PurePath) -> frozenset[str]:
    """What a file of Python defines, and not what it imports; of any other file, its words."""
    text = sources().get(path, "")
    if path.suffix != ".py":
        return frozenset(re.findall(r"\w+", text))
    defined: set[str] = set()
    parsed = ast.parse(text)
    docstrings = {id(node.value) for node in ast.walk(parsed) if isinstance(node, ast.Expr)}
    for node in ast.walk(parsed):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            defined.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            # Such as the name of a table or of a constraint.
            defined.update(re.findall(r"\w+", node.value))
    return frozenset(defined)


@cache
def defined_at(name: str) -> frozenset[str]:
    """What is defined in the file or the folder that is called by that name."""
    places = files_named(name)
    files = [path for path in sources() if any(path == place or place in path.parents for place in places)]
    return frozenset().union(*map(defined_in, files))


@by_document
def test_identifiers_are_in_the_file_that_is_said_to_have_them(document: Path) -> None:
    prose = re.sub(r"\s+", " ", prose_of(document))
    said = re.findall(r"`(\w+)(?:\(\))?` (?:in|of) (?:\[)?`([^`]+)`", prose)
    said = [(identifier, path) for identifier, path in said if is_path(path) and path not in FOREIGN_FILES]
    # module.Name, and module.function()
    dotted = [re.fullmatch(r"([a-z]\w*)\.([A-Z]\w*|\w+(?=\(\)))(?:\(\))?", span) for span in spans_of(document)]
    said += [(match[2], f"{match[1]}.py") for match in dotted if match and files_named(f"{match[1]}.py")]

    assert [(name, path) for name, path in said if name not in defined_at(path)] == []


@by_document
def test_identifiers_are_in_the_tree(document: Path) -> None:
    """Settings, constants, classes, functions, columns, constraints, metrics: whatever is no word of prose."""
    looks = r"_?[A-Za-z]\w*_\w+|[A-Z][a-z]+[A-Z]\w+|[a-z]+[A-Z]\w+"
    named = {match[1] for span in spans_of(document) if (match := re.fullmatch(rf"({looks})(?:\(\)|=.*)?", span))}

    assert named - words() - schema_names() - FOREIGN_NAMES == set()


# What is run.


@by_document
def test_make_has_the_targets(document: Path) -> None:
    targets = re.findall(r"^([a-z][\w-]*):(?!=)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    called = [name for line in code_of(document) for name in re.findall(r"^(?:\w+=\S* )*make ([a-z][\w-]*)", line)]

    assert set(called) - set(targets) == set()


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[click.Group]:
    """The commands of ``flask``; no database is asked."""
    with app_with(f"sqlite:///{tmp_path_factory.mktemp('cli') / 'none.db'}") as app:
        yield app.cli


def commands_in(line: str, cli: click.Group) -> Iterator[list[str]]:
    """What is called in a line of code: the words of a command and its options, without ``flask`` before it."""
    for call in re.split(r"&&|[|;#]", line):
        called = call.split()
        while called and re.match(r"\w+=", called[0]):
            called.pop(0)
        is_flask = bool(called) and PurePath(called[0]).name == "flask"
        if is_flask:
            called = called[3 if called[1:2] == ["--app"] else 1 :]
        elif len(called) > 1 and called[0] == "payments" and called[1] in cli.commands:
            called.pop(0)  # deploy/payments, before a command or a group
        if is_flask or (len(called) > 1 and isinstance(cli.commands.get(called[0]), click.Group)):
            yield called


def is_there(called: list[str], cli: click.Group) -> bool:
    """Whether there is such a command, and whether it has those options."""
    command: click.Command = cli
    rest = list(called)
    while isinstance(command, click.Group) and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
        found = command.commands.get(rest.pop(0))
        if found is None:
            return False
        command = found
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    return {option for word in rest for option in re.findall(r"^\[?(--[\w-]+)", word)} <= known


@by_document
def test_commands_and_their_options_are_there(document: Path, cli: click.Group) -> None:
    called = [words for line in code_of(document) for words in commands_in(line, cli)]

    assert [words for words in called if not is_there(words, cli)] == []


def test_every_command_is_in_a_document(cli: click.Group) -> None:
    ours = {
        f"{group} {name}"
        for group, commands in cli.commands.items()
        if isinstance(commands, click.Group)
        for name, command in commands.commands.items()
        if not command.hidden and command.callback.__module__.startswith("payments_app.")
    }
    told = "\n".join(line for document in DOCUMENTS for line in code_of(document))

    assert len(ours) > 10
    assert [name for name in ours if not re.search(rf"\b{name}\b", told)] == []


def test_what_is_wrong_is_seen(cli: click.Group) -> None:
    """Or else all of the above could pass for want of eyes."""
    assert (files_named("nowhere/models.py"), files_named("SECURITY.md")) == ([], [PurePath("SECURITY.md")])
    assert [word for word in ("tests/nothing", "nothing.py", "nothing/") if not is_path(word)] == []
    assert [word for word in ("application/json", "/healthz", "data.status", "and/or") if is_path(word)] == []
    assert "ON_BOTH" in defined_at("tests/conftest.py")
    assert "ROOT" not in defined_at("tests/conftest.py") | defined_at("test_pins.py")  # they import it
    lines = ["flask --app wsgi payments nothing", "payments payments list --nothing", "refunds nothing ID [--json]"]
    assert [line for line in lines for words in commands_in(line, cli) if is_there(words, cli)] == []
    lines = ["A=1 payments refunds list --json | head", "flask --app wsgi db upgrade", "users create EMAIL [--role]"]
    assert [is_there(words, cli) for line in lines for words in commands_in(line, cli)] == [True] * len(lines)
