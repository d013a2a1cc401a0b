"""Setting variables in a `.env`: what was there stays, and the file is for its owner alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftagent.core.errors import RequestError
from ftagent.settings.dotenv import read
from ftagent.settings.dotenv_edit import edited, write

FILE = """# My settings

# the model
CHAT_MODEL=old # my favourite
export OPENAI_API_KEY = "sk-old"
FT_LOG_PATH='a b'
MULTI='one
two'
NAME_ALONE
chat_model=older
# the end"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_but_the_variables_stays_as_it_is() -> None:
    text = edited(FILE, {"CHAT_MODEL": "gpt-5.2", "OPENAI_API_KEY": "sk-new", "NEW": "it's #1"})
    assert text == (
        "# My settings\n\n# the model\nCHAT_MODEL=gpt-5.2 # my favourite\nOPENAI_API_KEY=sk-new\nFT_LOG_PATH='a b'\n"
        "MULTI='one\ntwo'\nNAME_ALONE\nCHAT_MODEL=gpt-5.2\n# the end\nNEW='it\\'s #1'\n"
    )


def test_line_ends_and_a_byte_order_mark_stay(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes("\ufeffA=1\r\nB=2\r\n".encode())
    write(path, {"B": "3", "C": "4"})
    assert path.read_bytes() == "\ufeffA=1\r\nB=3\r\nC=4\r\n".encode()


def test_an_empty_value_unsets_what_is_there_and_adds_nothing(tmp_path: Path) -> None:
    assert edited("A=1\n", {"A": "", "B": ""}) == "A=\n"
    assert edited("", {"A": "1"}) == "A=1\n"


def test_a_new_file_is_for_its_owner_and_a_change_leaves_a_copy(tmp_path: Path) -> None:
    path, before = tmp_path / ".env", os.umask(0)
    try:
        assert write(path, {"OPENAI_API_KEY": "sk-1"}) is None
        assert mode(path) == 0o600
        path.chmod(0o644)
        copy = write(path, {"OPENAI_API_KEY": "sk-2"})
        assert copy == tmp_path / ".env.backup"
        assert copy.read_text() == "OPENAI_API_KEY=sk-1\n"
        assert (mode(path), mode(copy)) == (0o600, 0o600)
        assert write(path, {"OPENAI_API_KEY": "sk-3"}) == tmp_path / ".env.backup-2"
        assert write(path, {"OPENAI_API_KEY": "sk-3"}) is None
    finally:
        os.umask(before)
    assert sorted(item.name for item in tmp_path.iterdir()) == [".env", ".env.backup", ".env.backup-2"]


def test_a_mode_is_never_loosened_and_a_link_is_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "real", tmp_path / ".env"
    target.write_text("A=1\n")
    target.chmod(0o400)
    link.symlink_to(target)
    write(link, {"A": "2"})
    assert link.is_symlink()
    assert (target.read_text(), mode(target)) == ("A=2\n", 0o400)


def test_a_file_that_is_open_to_others_is_closed_even_where_nothing_changes(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    path.chmod(0o644)
    assert write(path, {"A": "1"}) is None
    assert mode(path) == 0o600


@pytest.mark.parametrize("text", ['A="never closed\nB=2\n', "= 2\n"])
def test_a_malformed_file_is_refused_and_untouched(tmp_path: Path, text: str) -> None:
    path = tmp_path / ".env"
    path.write_text(text)
    with pytest.raises(RequestError, match=r"\.env:1: cannot be read"):
        write(path, {"A": "1"})
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [(".env", text)]


def test_a_value_that_would_read_differently_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot hold the value of OPENAI_API_KEY") as caught:
        write(tmp_path / ".env", {"OPENAI_API_KEY": "canary-${HOME}"})
    assert "canary" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_and_a_missing_one_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent" / ".env"):
        with pytest.raises(RequestError):
            write(path, {"A": "1"})


SAFE = st.text(st.characters(blacklist_characters="\r\x00", blacklist_categories=["Cs"]), max_size=30)


@given(value=SAFE.filter(lambda value: "${" not in value))
def test_every_other_value_is_read_back_as_it_was_given(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.env"
    path.unlink(missing_ok=True)
    path.write_text(FILE)
    try:
        write(path, {"CHAT_MODEL": value, "ADDED": value})
    except RequestError:
        assert path.read_text() == FILE
    else:
        found = read(path, {})
        assert (found["CHAT_MODEL"], found.get("ADDED", "")) == (value, value)
        assert (found["FT_LOG_PATH"], found["MULTI"]) == ("a b", "one\ntwo")
    for copy in path.parent.glob("any.env.backup*"):
        copy.unlink()
