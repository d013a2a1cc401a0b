"""Every format and kind of file gives the conversations, pairs and problems that it holds."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftagent.toolkit.data import read_conversations, read_preferences, read_problems
from ftagent.toolkit.data.splits import parse_split
from ftagent.toolkit.data.thinking import is_joinable, join_thinking, split_thinking
from ftagent.toolkit.errors import ToolkitError

USER, REPLY = {"role": "user", "content": "1?"}, {"role": "assistant", "content": "1"}
THOUGHT = {**REPLY, "thinking": "hm"}
SYSTEM = {"role": "system", "content": "Be brief."}


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": [SYSTEM, USER, THOUGHT]}, [SYSTEM, USER, THOUGHT]),
        ({"messages": [USER, {**REPLY, "reasoning_content": "hm"}]}, [USER, THOUGHT]),
        ({"messages": [USER, {**REPLY, "content": "<think>\nhm\n</think>\n\n1"}]}, [USER, THOUGHT]),
        ({"messages": [USER, {**REPLY, "content": "<think>hm</think>1"}]}, [USER, THOUGHT]),
        ({"messages": [USER, {**REPLY, "content": "<think>1"}]}, [USER, {**REPLY, "content": "<think>1"}]),
        ({"messages": [USER, {**REPLY, "thinking": None}]}, [USER, REPLY]),
        ({"messages": [{**SYSTEM, "content": ""}, USER, REPLY]}, [USER, REPLY]),
        ({"conversation_pair": [USER, THOUGHT], "system_prompt": "Be brief."}, [SYSTEM, USER, THOUGHT]),
        ({"conversation_pair": [USER, REPLY], "system_prompt": ""}, [USER, REPLY]),
        ({"conversation_pair": [USER, REPLY]}, [USER, REPLY]),
        (
            {"conversations": [{"from": "human", "value": "1?"}, {"from": "gpt", "value": "<think>hm</think>1"}]},
            [USER, THOUGHT],
        ),
        (
            {"system": "Be brief.", "conversations": [{"from": "user", "value": "1?"}, {"from": "gpt", "value": "1"}]},
            [SYSTEM, USER, REPLY],
        ),
        ({"instruction": "1?", "output": "1"}, [USER, REPLY]),
        ({"instruction": "1", "input": "2", "output": "1"}, [{**USER, "content": "1\n2"}, REPLY]),
        (
            {"instruction": "1?", "input": "", "output": "1", "system": "Be brief.", "history": [["1?", "1"]]},
            [SYSTEM, USER, REPLY, USER, REPLY],
        ),
        ({"prompt": "1?", "completion": "<think>hm</think>1"}, [USER, THOUGHT]),
        ({"prompt": [SYSTEM, USER], "completion": [THOUGHT]}, [SYSTEM, USER, THOUGHT]),
    ],
)
def test_each_format_of_conversations(tmp_path: Path, row: dict[str, Any], messages: list[dict[str, str]]) -> None:
    extra = {"source": "web", "tags": [1, {"a": None}]}
    (read,) = read_conversations(lines(tmp_path / "a.jsonl", {**row, **extra, "id": 5}))
    assert list(read.messages) == messages
    assert (read.id, read.extra, read.line) == ("5", extra, 1)


def test_keys_of_messages_are_kept_beside_them(tmp_path: Path) -> None:
    row = {"conversation_pair": [{**USER, "name": "Ann"}, {**REPLY, "weight": 0}], "system_prompt": "x"}
    (read,) = read_conversations(lines(tmp_path / "a.jsonl", row))
    assert read.messages[1:] == (USER, REPLY)
    assert read.extra == {"message_keys": {"2": {"name": "Ann"}, "3": {"weight": 0}}}


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "1?", "chosen": "1", "rejected": "2"}, [USER]),
        ({"question": "1?", "system": "Be brief.", "chosen": "1", "rejected": "2"}, [SYSTEM, USER]),
        ({"prompt": [USER], "chosen": [REPLY], "rejected": [{**REPLY, "content": "2"}]}, [USER]),
        ({"prompt": "1?", "chosen": [USER, REPLY], "rejected": [USER, {**REPLY, "content": "2"}]}, [USER]),
        ({"chosen": [USER, REPLY], "rejected": [USER, {**REPLY, "content": "2"}]}, [USER]),
        (
            {
                "prompt": "1?",
                "chosen": [SYSTEM, USER, REPLY],
                "rejected": [SYSTEM, USER, {**REPLY, "content": "2"}],
            },
            [SYSTEM, USER],
        ),
        (
            {
                "chosen": [USER, REPLY, USER, REPLY],
                "rejected": [USER, REPLY, USER, {**REPLY, "content": "2"}],
            },
            [USER, REPLY, USER],
        ),
        ({"chosen": "\n\nHuman: 1?\n\nAssistant: 1", "rejected": "\n\nHuman: 1?\n\nAssistant: 2"}, [USER]),
        (
            {
                "conversations": [{"from": "human", "value": "1?"}],
                "chosen": {"from": "gpt", "value": "1"},
                "rejected": {"from": "gpt", "value": "2"},
            },
            [USER],
        ),
    ],
)
def test_each_format_of_preferences(tmp_path: Path, row: dict[str, Any], prompt: list[dict[str, str]]) -> None:
    (read,) = read_preferences(lines(tmp_path / "a.jsonl", {**row, "score": 1, "id": "x"}))
    assert list(read.prompt) == prompt
    assert (read.chosen, read.rejected) == ((REPLY,), ({**REPLY, "content": "2"},))
    assert (read.id, read.extra) == ("x", {"score": 1})


@pytest.mark.parametrize("key", ["prompt", "question", "problem", "messages"])
def test_each_format_of_problems(tmp_path: Path, key: str) -> None:
    prompt: Any = [USER] if key == "messages" else "1?"
    (read,) = read_problems(lines(tmp_path / "a.jsonl", {key: prompt, "answer": 7, "metadata": {"level": 1}}))
    assert (read.prompt, read.answer, read.extra) == ((USER,), "7", {"metadata": {"level": 1}})


@pytest.mark.data
def test_real_problems() -> None:
    import os

    read = read_problems(Path(os.environ["FTAGENT_DATA_MIRROR"]) / "gsm8k/test.jsonl", "train[-19:]")
    assert len(read) == 19
    assert read[-1].line == 1319
    assert "####" in read[-1].answer
    aime = read_problems(Path(os.environ["FTAGENT_DATA_MIRROR"]) / "aime/test2024.jsonl")
    assert len(aime) == 30
    assert aime[0].extra.keys() == {"solution", "url"}


GOOD = {"messages": [USER, REPLY]}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [USER, {**REPLY, "content": " \n"}]}, "message 2 is empty; give it a text or remove it"),
        ({"messages": [USER, REPLY, USER]}, "ends in a user turn; add the assistant's reply or remove the turn"),
        ({"messages": [{**USER, "thinking": "x"}, REPLY]}, "only an assistant's message can have thinking"),
        ({"messages": [USER, {**THOUGHT, "reasoning_content": "y"}]}, "must be one string"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [{}]}]}, "calls a tool, but no tool turn follows"),
        ({"instruction": "1?", "output": "1"}, r"a.jsonl:3: is alpaca (instruction and output), but"),
        ({"text": "x"}, "a.jsonl:1 is messages (messages); a file has one format"),
        ('{"messages": NaN}', "NaN is no JSON value"),
        ('{"messages": "\\ud800"}', "half of a surrogate pair, \\ud800, stands for no character"),
        ('{"a": ' * 5000 + "1" + "}" * 5000, "nested too deeply"),
        ('{"messages": ' + "1" * 5000 + "}", "not JSON: Exceeds the limit"),
        ("\0", "not JSON"),
    ],
)
def test_a_bad_row_is_one_line_with_its_place(tmp_path: Path, row: Any, says: str) -> None:
    with pytest.raises(ToolkitError, match=r"a\.jsonl:3: ") as error:
        read_conversations(lines(tmp_path / "a.jsonl", GOOD, "", row))
    assert says in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "1?", "chosen": "1", "rejected": ""}, "rejected: message 1 is empty"),
        ({"chosen": "1", "rejected": "2"}, 'key "prompt" is missing, and "chosen" and "rejected" do not repeat it'),
        ({"prompt": [USER, REPLY], "chosen": "1", "rejected": "2"}, "the prompt must end in a user turn"),
        ({"prompt": [USER], "chosen": [USER], "rejected": [REPLY]}, "or both begin with the prompt"),
        (GOOD, "is messages (messages), and preference pairs are needed here"),
        ({"text": 1}, "no known format, it has 'text'; known are rows with "),
    ],
)
def test_a_bad_pair_is_one_line_with_its_place(tmp_path: Path, row: Any, says: str) -> None:
    with pytest.raises(ToolkitError, match=r"a\.jsonl:1: ") as error:
        read_preferences(lines(tmp_path / "a.jsonl", row))
    assert says in str(error.value)


def test_a_tool_turn_is_read(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    tool = {"role": "tool", "content": "3", "tool_call_id": "1"}
    (read,) = read_conversations(lines(tmp_path / "a.jsonl", {"messages": [USER, call, tool, REPLY]}))
    assert [message["role"] for message in read.messages] == ["user", "assistant", "tool", "assistant"]
    assert read.extra["message_keys"] == {"2": {"tool_calls": [{"id": "1"}]}, "3": {"tool_call_id": "1"}}


def test_a_row_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    text = "x" * 10_000_000
    row = {"messages": [USER, {**REPLY, "content": text}]}
    for name in ("a.jsonl", "a.csv"):
        if name == "a.csv":
            with (tmp_path / name).open("w", newline="") as stream:
                csv.writer(stream).writerows([["messages"], [json.dumps(row["messages"])]])
        else:
            lines(tmp_path / name, row)
        assert read_conversations(tmp_path / name)[0].messages[1]["content"] == text


def test_a_json_list_tells_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("\ufeff" + json.dumps([GOOD, GOOD, {"messages": [USER]}], indent=1), encoding="utf-8")
    with pytest.raises(ToolkitError, match=r"a\.json: item 3 \(line 26\): no message has role assistant"):
        read_conversations(path)
    assert path.read_text().splitlines()[25].strip() == "{"
    assert [row.line for row in read_conversations(path, "train[:2]")] == [1, 2]
    path.write_text(json.dumps([GOOD, GOOD])[:-9])
    with pytest.raises(ToolkitError, match=r"item 2 \(line 1\): not JSON"):
        read_conversations(path)
    for text, says in (("[{}] x", "'x' after the end of the list"), ("[{} {}]", "no comma"), ("[1]", "not int")):
        path.write_text(text)
        with pytest.raises(ToolkitError, match=says):
            read_conversations(path, "train[1:]")


def test_csv_says_row_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('prompt,completion,score\n"a\nb",c,3.10\n"d",e\n')
    with pytest.raises(
        ToolkitError, match=r"a\.csv: row 2 \(line 4\): has 2 cells, and the first line names 3 columns"
    ):
        read_conversations(path)
    (read,) = read_conversations(path, "train[:1]")
    assert read.messages[0]["content"] == "a\nb"
    assert read.extra == {"score": "3.10"}
    for text, says in (
        ("a,a\n1,2\n", "two columns 'a'"), ("messages\n[{'role']\n", 'column "messages" must be a JSON list'),
        ("", "has no rows"), ('a\n"b', r"a\.csv:2: not CSV: unexpected end"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ToolkitError, match=says):
            read_conversations(path)


def test_parquet_as_pandas_and_datasets_write_it(tmp_path: Path) -> None:
    import numpy
    import pandas

    frame = pandas.DataFrame(
        {
            "messages": [numpy.array([USER, THOUGHT], dtype=object), numpy.array([USER, REPLY], dtype=object)],
            "score": [1.5, float("nan")],
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    first, second = read_conversations(tmp_path / "a.parquet")
    assert (first.messages, first.extra) == ((USER, THOUGHT), {"score": 1.5})
    assert (second.messages, second.extra, second.line) == ((USER, REPLY), {}, 2)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 is not all")
    with pytest.raises(ToolkitError, match=r"b\.parquet: not a parquet file that can be read"):
        read_conversations(tmp_path / "b.parquet")


def test_folders_and_datasets_on_disk(tmp_path: Path) -> None:
    import datasets

    folder = tmp_path / "many"
    (folder / "data").mkdir(parents=True)
    lines(folder / "data/train-00000-of-00002.jsonl", GOOD, GOOD)
    lines(folder / "data/train-00001-of-00002.jsonl", GOOD, {"messages": [USER]})
    lines(folder / "valid.jsonl", GOOD)
    (folder / "README.md").write_text("x")
    assert [row.line for row in read_conversations(folder, "train[:3]")] == [1, 2, 3]
    assert len(read_conversations(folder, "validation")) == 1
    with pytest.raises(ToolkitError, match=r"train-00001-of-00002\.jsonl:2: no message has role assistant"):
        read_conversations(folder)
    with pytest.raises(ToolkitError, match="has no split 'test'; there is train, validation"):
        read_conversations(folder, "test")
    saved = datasets.DatasetDict({"train": datasets.Dataset.from_list([GOOD, GOOD, {"messages": [USER, THOUGHT]}])})
    saved["train"] = saved["train"].select([2, 0])
    saved.save_to_disk(tmp_path / "saved")
    assert [row.messages for row in read_conversations(tmp_path / "saved")] == [(USER, THOUGHT), (USER, REPLY)]
    with pytest.raises(ToolkitError, match="has no split 'test'; there is train"):
        read_conversations(tmp_path / "saved", "test")


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ToolkitError, match=r"^somebody/chats: no file or folder of that name here, and not read from the"
    ):
        read_conversations("somebody/chats")
    with pytest.raises(ToolkitError, match=r"data/train\.jsonl: cannot be read: No such file"):
        read_conversations("data/train.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ToolkitError, match="empty: has no file of"):
        read_conversations("empty")
    with pytest.raises(ToolkitError, match="is one file, whose only split is train; there is no split 'test'"):
        read_conversations(lines(tmp_path / "a.jsonl", GOOD), "test")
    assert len(read_conversations(lines(tmp_path / "test.jsonl", GOOD), "test")) == 1


BOUND = st.none() | st.integers(-120, 120)


@settings(max_examples=300, deadline=None)
@given(low=BOUND, high=BOUND, percent=st.booleans(), rows=st.integers(0, 130))
def test_splits_are_those_of_datasets(low: int | None, high: int | None, percent: bool, rows: int) -> None:
    from datasets import ReadInstruction

    sign = "%" if percent else ""
    text = f"train[{'' if low is None else f'{low}{sign}'}:{'' if high is None else f'{high}{sign}'}]"
    try:
        instruction = ReadInstruction.from_spec(text).to_absolute({"train": rows})[0]
    except (AssertionError, ValueError):
        if percent and any(bound is not None and abs(bound) > 100 for bound in (low, high)):
            with pytest.raises(ToolkitError, match="percentages"):
                parse_split(text)
        return
    expected = list(range(rows))[instruction.from_ : instruction.to]
    begin, end = parse_split(text).bounds(rows)
    assert list(range(rows))[begin:end] == expected


@pytest.mark.parametrize(
    "text", ["", "train[", "train[1]", "train[a:b]", "train[:5%][:1]", "train+test", "train[:1.5]"]
)
def test_what_is_no_split(text: str) -> None:
    with pytest.raises(ToolkitError, match="not a split; write train"):
        parse_split(text)


@given(thinking=st.text(), content=st.text())
def test_thinking_that_is_joined_comes_back_or_is_known_not_to(thinking: str, content: str) -> None:
    clean = not any(tag in text for text in (thinking, content) for tag in ("<think>", "</think>"))
    assert is_joinable(thinking, content) is clean
    assert not clean or split_thinking(join_thinking(thinking, content)) == (thinking, content)
