"""What is installed is what was pinned: every package, in that version, by hashes of its files."""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.databases import ROOT

FILES = ["requirements.txt", "requirements-dev.txt", "requirements-bench.txt"]
# Those that the tests run with; what the benchmark adds need not be there.
INSTALLED = FILES[:2]
HASHES = re.compile(r"( --hash=sha256:[0-9a-f]{64})+")


def logical_lines(path: Path) -> Iterator[str]:
    """One for each requirement, without comments."""
    text = re.sub(r"\\\n\s*", "", path.read_text())
    return (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def pins_of(name: str) -> dict[str, Requirement]:
    """What the file pins, by normalised names; what another platform or Python needs is among it."""
    requirements = [Requirement(line.partition(" --hash")[0].rstrip()) for line in logical_lines(ROOT / name)]
    pins: dict[str, Requirement] = {canonicalize_name(requirement.name): requirement for requirement in requirements}
    assert len(pins) == len(requirements)
    return pins


def pins_here(name: str) -> dict[str, Requirement]:
    pins = pins_of(name)
    return {name: pin for name, pin in pins.items() if pin.marker is None or pin.marker.evaluate()}


def needed_by(name: str, extras: set[str]) -> Iterator[Requirement]:
    """What that installed package itself asks for, on this machine."""
    for text in distribution(name).requires or ():
        needed = Requirement(text)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield needed


@pytest.mark.parametrize("name", ["requirements-pip.txt", *FILES, "examples/booking-site/requirements.txt"])
def test_every_requirement_is_one_version_with_hashes(name: str) -> None:
    """Then pip refuses any file that is not one of those, and any package that is not in the list."""
    for line in logical_lines(ROOT / name):
        requirement, _, _ = line.partition(" --hash")
        assert re.fullmatch(r"==[^*,]+", str(Requirement(requirement).specifier)), line[:80]
        assert HASHES.fullmatch(line[len(requirement) :]), line[:80]


def test_what_is_tested_is_what_runs() -> None:
    runs, tests, measures = (pins_of(name) for name in FILES)

    assert {name: str(tests[name].specifier) for name in runs} == {name: str(runs[name].specifier) for name in runs}
    assert {name: str(measures[name].specifier) for name in tests} == {
        name: str(tests[name].specifier) for name in tests
    }


@pytest.mark.parametrize("name", INSTALLED)
def test_what_is_installed_is_what_is_pinned(name: str) -> None:
    def installed(package: str) -> str | None:
        try:
            return distribution(package).version
        except PackageNotFoundError:
            return None

    pins = pins_here(name)

    assert {package: f"=={installed(package)}" for package in pins} == {
        package: str(pin.specifier) for package, pin in pins.items()
    }


@pytest.mark.parametrize("name", INSTALLED)
def test_whatever_a_pinned_package_needs_is_pinned_too(name: str) -> None:
    """So nothing is fetched that nobody has named."""
    pins = pins_here(name)
    needed = {
        (package, canonicalize_name(other.name))
        for package, pin in pins.items()
        for other in needed_by(package, set(pin.extras))
    }

    assert len(needed) > len(pins) / 2  # or else it was not looked up
    assert sorted((package, other) for package, other in needed if other not in pins) == []
