"""Conversion between formats and kinds of files: what goes out comes back."""

import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ftagent.toolkit.data.convert import convert
from ftagent.toolkit.data.formats import FORMATS, Item, detect, parse, unparse
from ftagent.toolkit.data.messages import RowError
from ftagent.toolkit.data.opening import open_source
from ftagent.toolkit.data.reading import parsed, read_problems
from ftagent.toolkit.data.sources import fail
from ftagent.toolkit.errors import ToolkitError

CONVERSATIONS = [name for name, form in FORMATS.items() if form.kind == "conversation"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip) | st.sampled_from(
    ["<think>\nwhy\n</think>\n\nso", "<think>x</think>y", "<think>open", "a\r\nb\rc\n", '[{"role": "user"}]', '"x"',
     "3.10", " lead and trail ", "\0nul", "null", "Human: hi\n\nAssistant: ho", "=1+1", "[1]", "{}", "\ufeffbom"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT | st.just(""),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
SAFE_KEYS = ["source", "score", "tags", "a b", "é", "weight"]
FORMAT_KEYS = [
    "prompt",
    "system",
    "history",
    "answer",
    "messages",
    "input",
    "id",
    "conversation_id",
    "question",
    "chosen",
]


@st.composite
def messages(draw: st.DrawFn) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if draw(st.booleans()):
        found.append({"role": "system", "content": draw(TEXT)})
    if draw(st.booleans()):
        roles = ["user", "assistant"] * draw(st.integers(1, 3))
    else:
        roles = [*draw(st.lists(st.sampled_from(["user", "assistant", "tool", "system"]), max_size=4)), "assistant"]
    for role in roles:
        message: dict[str, Any] = {"role": role, "content": draw(TEXT)}
        if role == "assistant" and draw(st.booleans()):
            message[draw(st.sampled_from(["thinking", "reasoning_content"]))] = draw(TEXT | st.just(""))
        if draw(st.integers(0, 9)) == 0:
            message["weight"] = draw(st.integers(0, 1))
        found.append(message)
    return found


def rows(keys: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    extra = st.dictionaries(st.sampled_from(keys), JSON, max_size=3)
    return st.builds(lambda messages, extra: {**extra, "messages": messages}, messages(), extra)


def read(row: dict[str, Any]) -> Item:
    try:
        return parse(FORMATS["messages"], row, 1)
    except RowError:
        # For example a text that is nothing but thinking.
        assume(False)
        raise


def known(item: Item) -> Any:
    """All but the line, with types told apart: 1, 1.0 and True are equal."""
    return json.dumps({key: value for key, value in vars(item).items() if key != "line"}, sort_keys=True)


@pytest.mark.parametrize("name", CONVERSATIONS)
@settings(max_examples=100, deadline=None)
@given(row=rows([*SAFE_KEYS, *FORMAT_KEYS]), text=st.booleans())
def test_a_row_that_a_format_holds_reads_as_the_same(name: str, row: dict[str, Any], text: bool) -> None:
    form = FORMATS[name]
    item = read(row)
    try:
        written = unparse(form, item, text and form.is_text(item))
    except RowError:
        return
    assert detect(written) is form
    assert known(parse(form, written, 1)) == known(item)


@pytest.mark.parametrize("name", CONVERSATIONS)
@settings(max_examples=50, deadline=None)
@given(row=rows(SAFE_KEYS))
def test_turns_by_turns_without_tags_fit_everywhere(name: str, row: dict[str, Any]) -> None:
    item = read(row)
    roles = [
        message["role"] for message in item.messages if message["role"] != "system" or message is not item.messages[0]
    ]
    assume(roles == ["user", "assistant"] * (len(roles) // 2))
    assume(not any("think>" in text for message in item.messages for text in message.values()))
    unparse(FORMATS[name], item)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("name", CONVERSATIONS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some=st.lists(rows(SAFE_KEYS), min_size=1, max_size=4))
def test_a_file_of_any_kind_comes_back(name: str, suffix: str, tmp_path: Path, some: list[dict[str, Any]]) -> None:
    start, middle, back = tmp_path / "a.jsonl", tmp_path / f"b{suffix}", tmp_path / "c.jsonl"
    middle.unlink(missing_ok=True)
    items = [read(row) for row in some]
    start.write_text("".join(json.dumps(row) + "\n" for row in some))
    try:
        convert(start, middle, write_as=name)
    except ToolkitError:
        # What may be refused is the other tests' matter; a refusal is no file.
        assert not middle.exists()
        return
    convert(middle, back, write_as="messages")
    assert [known(item) for item in items_of(back)] == [known(item) for item in items]


def items_of(path: Path) -> list[Item]:
    found = []
    for _, _, item in parsed(open_source(path, "train", fail), None, None):
        assert not isinstance(item, RowError)
        found.append(item)
    return found


PREFERENCE = {
    "prompt": [{"role": "user", "content": "1?"}],
    "chosen": [{"role": "assistant", "content": "1"}],
    "rejected": [{"role": "assistant", "content": "2", "thinking": "hm"}],
    "score": [1, None, {"a": {}}],
    "id": "p1",
}


@pytest.mark.parametrize("suffix", [".json", ".csv", ".parquet"])
@pytest.mark.parametrize("name", ["preference", "sharegpt_preference"])
def test_pairs_come_back(name: str, suffix: str, tmp_path: Path) -> None:
    start, middle, back = tmp_path / "a.jsonl", tmp_path / f"b{suffix}", tmp_path / "c.jsonl"
    start.write_text(json.dumps(PREFERENCE) + "\n")
    assert convert(start, middle, write_as=name).written_as == name
    convert(middle, back, write_as="preference")
    assert known(items_of(back)[0]) == known(items_of(start)[0])


def test_without_a_format_the_rows_stay_as_they_are(tmp_path: Path) -> None:
    row = {"question": "1+1?", "answer": "2", "metadata": {"level": 1.0}, "prompt_id": 7}
    (tmp_path / "a.json").write_text(json.dumps([row]))
    convert(tmp_path / "a.json", tmp_path / "b.parquet")
    convert(tmp_path / "b.parquet", tmp_path / "c.jsonl")
    assert json.loads((tmp_path / "c.jsonl").read_text()) == row


def test_numeric_ids_and_answers_fit_a_table_of_texts(tmp_path: Path) -> None:
    rows = [{"id": 7, "prompt": "4 + 3 =", "answer": 7}, {"id": 8, "prompt": "15 / 2 =", "answer": 7.5}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    convert(tmp_path / "in.jsonl", tmp_path / "out.csv")
    assert read_problems(tmp_path / "out.csv") == [
        replace(item, line=number) for number, item in enumerate(read_problems(tmp_path / "in.jsonl"), start=1)
    ]


def test_messages_of_a_table_have_no_keys_of_other_messages(tmp_path: Path) -> None:
    row = {"messages": [
        {"role": "user", "content": "a", "name": "n"}, {"role": "assistant", "content": "b", "thinking": "t"},
    ], "tags": [None]}  # fmt: skip
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    convert(tmp_path / "in.jsonl", tmp_path / "out.parquet")
    convert(tmp_path / "out.parquet", tmp_path / "back.jsonl")
    assert json.loads((tmp_path / "back.jsonl").read_text()) == row


def test_a_problem_becomes_a_conversation_and_no_other_way(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "1+1?", "answer": 2}\n')
    convert(tmp_path / "a.jsonl", tmp_path / "b.jsonl", write_as="alpaca")
    assert json.loads((tmp_path / "b.jsonl").read_text()) == {"instruction": "1+1?", "input": "", "output": "2"}
    with pytest.raises(ToolkitError, match=r"b\.jsonl:1: a conversation cannot become problems"):
        convert(tmp_path / "b.jsonl", tmp_path / "c.jsonl", write_as="problems")
    assert not (tmp_path / "c.jsonl").exists()


TWO_USERS = {"messages": [{"role": role, "content": "x"} for role in ("user", "user", "assistant")]}
FITS = {"messages": [{"role": role, "content": "x"} for role in ("user", "assistant")]}


def test_what_the_format_cannot_hold_is_refused_with_its_line_or_left_out(tmp_path: Path) -> None:
    given = tmp_path / "a.jsonl"
    given.write_text(f"{json.dumps(FITS)}\n\n{json.dumps(TWO_USERS)}\n")
    out = tmp_path / "b.json"
    out.write_text("old")
    with pytest.raises(ToolkitError, match=r"a\.jsonl:3: cannot become alpaca: alpaca needs user and assistant turns"):
        convert(given, out, write_as="alpaca")
    assert out.read_text() == "old"
    done = convert(given, out, write_as="alpaca", leave_out=True)
    assert (done.rows, done.left_out) == (1, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.json"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({**FITS, "instruction": 1, "output": 2}, 'has a key "instruction" of its own'),
        ({**FITS, "chosen": 1, "rejected": 2}, "would make the row look like preference"),
        ({"messages": [FITS["messages"][0], {"role": "assistant", "content": "x", "thinking": "</think>"}]}, "tags"),
    ],
)
def test_a_row_that_would_read_as_another_is_refused(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ToolkitError, match=r"a\.jsonl:1: cannot become alpaca: ") as error:
        convert(tmp_path / "a.jsonl", tmp_path / "b.jsonl", read_as="messages", write_as="alpaca")
    assert says in str(error.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    given, out = tmp_path / "a.jsonl", tmp_path / f"b{suffix}"
    given.write_text("".join(json.dumps({**FITS, "n": f"{number} {number**5}"}) + "\n" for number in range(20_000)))
    out.write_text("old")
    words = ["-m", "ftagent", "data", "convert", str(given), str(out), "--to", "sharegpt"]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"error: {out}: cannot be written: File too large\n"
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", out.name]


def test_names_that_tell_no_kind_and_places_that_are_none(tmp_path: Path) -> None:
    given = tmp_path / "a.jsonl"
    given.write_text(json.dumps(FITS) + "\n")
    for out, says in ((tmp_path / "b.xlsx", "name it .json"), (tmp_path / "no" / "b.json", "a folder that exists")):
        with pytest.raises(ToolkitError, match=says):
            convert(given, out)
    with pytest.raises(ToolkitError, match="--to openai: no such format; there are conversations, "):
        convert(given, tmp_path / "b.json", write_as="openai")
