"""Documents that can drift from the code do not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_generated_pages_are_current() -> None:
    command = [sys.executable, str(ROOT / "docs/generate_reference.py"), "--check"]
    environment = {**os.environ, "COLUMNS": "60"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_to_files_hold(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_options_in_the_guides_exist() -> None:
    known = set(re.findall(r"--[a-z][a-z-]+", (ROOT / "docs/command-line.md").read_text()))
    unknown = {
        f"{page.relative_to(ROOT)}: {option}"
        for page in PAGES
        for line in page.read_text().splitlines()
        if "ftagent " in line and "pip" not in line
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)
        if option not in known
    }
    assert unknown == set()


def test_commands_in_the_guides_exist() -> None:
    known = set(re.findall(r"^#+ ftagent (\S+)", (ROOT / "docs/command-line.md").read_text(), re.MULTILINE))
    used = {
        word: page.relative_to(ROOT)
        for page in PAGES
        for block in re.findall(r"^```(?:sh|text)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        if page.name != "command-line.md"
        for word in re.findall(r"^ftagent ([a-z-]+)", block, re.MULTILINE)
    }
    assert used, "no command found: the pattern is wrong"
    assert {word: page for word, page in used.items() if word not in known} == {}


def test_tests_that_the_documents_name_exist() -> None:
    named = {
        (page.relative_to(ROOT), path)
        for page in PAGES
        for path in re.findall(r"`((?:tests|src|docs|scenarios|scripts)/[\w/.-]+\.py)`", page.read_text())
    }
    assert len(named) > 5
    assert {(page, path) for page, path in named if not (ROOT / path).is_file()} == set()
