"""The cache of replies and vectors: found again, shared by processes, and never a reason to stop."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ftagent.llm.cache import ReplyCache
from ftagent.llm.types import ChatReply, Usage

REPLY = ChatReply("text \U0001f600 \x00", "thought", "stop", "", Usage(3, 4, 1, 2))


class Notes(list[str]):
    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture
def notes() -> Notes:
    return Notes()


def cache(folder: Path, notes: Notes, read: bool = True, write: bool = True) -> ReplyCache:
    return ReplyCache(folder / "cache" / "llm.sqlite", read, write, notes)


def test_a_reply_is_found_again_by_another_process(tmp_path: Path, notes: Notes) -> None:
    first = cache(tmp_path, notes)
    first.keep_reply("a" * 64, REPLY)
    first.close()
    code = (
        "import sys; from pathlib import Path; from ftagent.llm.cache import ReplyCache;"
        "print(ReplyCache(Path(sys.argv[1]), True, False, print).reply('a' * 64).usage)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cache/llm.sqlite")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(REPLY.usage)
    assert (first.reply("a" * 64), first.reply("b" * 64), notes) == (REPLY, None, [])


def test_reading_and_writing_are_switched_apart(tmp_path: Path, notes: Notes) -> None:
    off = cache(tmp_path, notes, read=False, write=False)
    off.keep_reply("a", REPLY)
    assert off.reply("a") is None
    assert not (tmp_path / "cache").exists()
    writer = cache(tmp_path, notes, read=False)
    writer.keep_reply("a", REPLY)
    assert writer.reply("a") is None
    reader = cache(tmp_path, notes, write=False)
    reader.keep_reply("b", REPLY)
    assert (reader.reply("a"), reader.reply("b")) == (REPLY, None)


@pytest.mark.parametrize(
    "reply",
    [ChatReply(""), ChatReply(" \n"), ChatReply("half", finish_reason="length"), ChatReply("a", refusal="no")],
)
def test_a_reply_that_is_not_whole_is_not_kept(tmp_path: Path, notes: Notes, reply: ChatReply) -> None:
    store = cache(tmp_path, notes)
    store.keep_reply("a", reply)
    assert store.reply("a") is None


def test_vectors_are_kept_per_model_and_text(tmp_path: Path, notes: Notes) -> None:
    store = cache(tmp_path, notes)
    store.keep_vectors("m", ["a", "b"], [[1.0, -0.5], [0.25, 3e-7]])
    assert store.vectors("m", ["b", "c", "a"]) == [[0.25, 3e-7], None, [1.0, -0.5]]
    assert store.vectors("other", ["a"]) == [None]


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + os.urandom(8000)])
def test_a_damaged_file_is_set_aside(tmp_path: Path, notes: Notes, content: bytes) -> None:
    path = tmp_path / "cache" / "llm.sqlite"
    path.parent.mkdir()
    path.write_bytes(content)
    store = cache(tmp_path, notes)
    assert store.reply("a") is None
    store.keep_reply("a", REPLY)
    assert store.reply("a") == REPLY
    (note,) = notes
    assert "damaged" in note
    (aside,) = path.parent.glob("llm.sqlite.damaged-*")
    assert aside.read_bytes() == content


def test_damage_that_appears_while_it_is_open_is_survived(tmp_path: Path, notes: Notes) -> None:
    store = cache(tmp_path, notes)
    for number in range(200):
        store.keep_reply(f"{number}", ChatReply("x" * 500))
    store.close()
    path = tmp_path / "cache" / "llm.sqlite"
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    assert store.reply("7") is None
    store.keep_reply("new", REPLY)
    assert store.reply("new") == REPLY
    assert len(notes) == 1


def test_a_value_of_another_shape_is_as_good_as_absent(tmp_path: Path, notes: Notes) -> None:
    store = cache(tmp_path, notes)
    store.keep_reply("a", REPLY)
    with sqlite3.connect(tmp_path / "cache" / "llm.sqlite") as database:
        database.execute("UPDATE entries SET value = ?", (b'{"content": 3}',))
    database.close()
    assert store.reply("a") is None
    store.keep_reply("a", REPLY)
    assert (store.reply("a"), notes) == (REPLY, [])


def test_a_place_that_cannot_be_used_is_noted_once(tmp_path: Path, notes: Notes) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    store = cache(tmp_path, notes)
    store.keep_reply("a", REPLY)
    assert store.reply("a") is None
    assert len(notes) == 1
    assert "goes on without it" in notes[0]


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path, notes: Notes) -> None:
    code = (
        "import sys; from pathlib import Path; from ftagent.llm.cache import ReplyCache;"
        "from ftagent.llm.types import ChatReply;"
        "c = ReplyCache(Path(sys.argv[1]), True, True, lambda text: sys.exit(text));"
        "[c.keep_reply(sys.argv[2] + str(n), ChatReply('x')) for n in range(60)]"
    )
    path = str(tmp_path / "cache" / "llm.sqlite")
    children = [subprocess.Popen([sys.executable, "-c", code, path, name]) for name in "abcd"]
    assert [child.wait(60) for child in children] == [0] * 4
    store = cache(tmp_path, notes)
    assert all(store.reply(f"{name}{number}") for name in "abcd" for number in range(60))
