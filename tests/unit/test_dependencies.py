"""Dependencies are bounded, pinned, and free of addresses and known-bad releases."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
KNOWN_BAD = {"litellm": ["1.82.7", "1.82.8"]}


def requirements() -> list[Requirement]:
    """Every requirement of pyproject.toml: build, core and extras."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = document["project"]
    lines = [*document["build-system"]["requires"], *project["dependencies"]]
    lines += [line for extra in project["optional-dependencies"].values() for line in extra]
    return [Requirement(line) for line in lines]


def pins() -> dict[str, Version]:
    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, separator, version = line.partition("==")
        assert separator, f"constraints.txt: {line!r} is no pin"
        found[canonical(name)] = Version(version)
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_requirement_is_bounded_and_pinned_within_its_bounds(requirement: Requirement) -> None:
    operators = {specifier.operator for specifier in requirement.specifier}
    assert operators & {"<", "<=", "=="}, "no upper bound"
    assert operators & {">=", ">", "=="}, "no lower bound"
    pin = pins().get(canonical(requirement.name))
    assert pin is not None, "not in constraints.txt"
    assert requirement.specifier.contains(pin), f"constraints.txt pins {pin}"


def test_pins_name_no_address() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert not re.search(r"://|@|--", text)
    assert pins()["torch"] == Version("2.13.0")


def test_known_bad_releases_are_excluded() -> None:
    by_name = {canonical(requirement.name): requirement for requirement in requirements()}
    for name, versions in KNOWN_BAD.items():
        for version in versions:
            assert not by_name[name].specifier.contains(version)
            assert pins()[name] != Version(version)


def test_no_lock_file_records_registry_addresses() -> None:
    assert [name for name in ("uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock") if (ROOT / name).exists()] == []
