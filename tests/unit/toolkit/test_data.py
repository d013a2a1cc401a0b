from pathlib import Path

import pytest

from ftagent.toolkit.data import read_conversations, read_questions
from ftagent.toolkit.errors import ToolkitError

GOOD = '{"messages": [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "1"}]}'
ASKED = '{"id": "a", "messages": [{"role": "user", "content": "1?"}]}'


def test_rows_keep_their_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(f"{GOOD}\n\n{GOOD}\n", encoding="utf-8")
    assert [row.line for row in read_conversations(path)] == [1, 3]
    assert read_conversations(path)[0].messages[1] == {"role": "assistant", "content": "1"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "not JSON"),
        (b'"text"', "must be a JSON object, not str"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b'{"messages": []}', "at least one message"),
        (b'{"messages": ["x"]}', "message 1 must be an object, not str"),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', "role 'robot'; valid: system, user, assistant, tool"),
        (b'{"messages": [{"role": "user", "content": 1}]}', 'message 1: "content" must be a string'),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "no message has role assistant"),
    ],
)
def test_a_bad_row_is_an_error_with_its_line(tmp_path: Path, line: bytes, says: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(GOOD.encode() + b"\n" + line + b"\n")
    with pytest.raises(ToolkitError, match=r"data\.jsonl:2: ") as error:
        read_conversations(path)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (ASKED, "id 'a' is already that of line 1"),
        ('{"messages": [{"role": "user", "content": "x"}]}', 'key "id" must be a string'),
        (GOOD.replace("{", '{"id": "b", ', 1), "the last message is the assistant's"),
    ],
)
def test_a_bad_question_is_an_error_with_its_line(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f"{ASKED}\n{line}\n", encoding="utf-8")
    with pytest.raises(ToolkitError, match=r"questions\.jsonl:2: ") as error:
        read_questions(path)
    assert says in str(error.value)


@pytest.mark.parametrize("read", [read_conversations, read_questions])
def test_an_empty_or_absent_file_is_an_error(tmp_path: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(ToolkitError, match="cannot be read"):
        read(tmp_path / "none")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ToolkitError, match="has no rows"):
        read(tmp_path / "empty")
