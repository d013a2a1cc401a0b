"""Whatever a file holds, reading, checking and converting it end in a result or in one line."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftagent.toolkit.data import read_conversations, read_preferences, read_problems
from ftagent.toolkit.data.check import check
from ftagent.toolkit.data.convert import convert
from ftagent.toolkit.data.formats import FORMATS
from ftagent.toolkit.data.lengths import Characters
from ftagent.toolkit.errors import ToolkitError

OTHER_KEYS = {
    "role",
    "content",
    "from",
    "value",
    "thinking",
    "tool_calls",
    "id",
    "conversation_id",
    "message_keys",
    "1",
}
KEYS = sorted({key for form in FORMATS.values() for key in (*form.keys, *form.prompts)} | OTHER_KEYS)
WORDS = ["user", "assistant", "system", "tool", "human", "gpt", "<think>", "</think>", "", " ", "\0", "x",
         "Human: a\n\nAssistant: b", "[{}]", '{"a": [1]}']  # fmt: skip
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
ROWS = st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5), min_size=1, max_size=3)
ASKED, SAID = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "thinking": "t"}
GOOD: list[dict[str, Any]] = [
    {"messages": [ASKED, SAID], "id": "1", "message_keys": {"1": {"weight": 1}}},
    {"conversation_pair": [ASKED, SAID], "system_prompt": "s", "conversation_id": "1"},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
    {"instruction": "q", "input": "", "output": "a", "history": [["q", "a"]], "system": "s"},
    {"prompt": [ASKED], "completion": [SAID]},
    {"prompt": "q", "completion": "a"},
    {"chosen": [ASKED, SAID], "rejected": [ASKED, {**SAID, "content": "b"}]},
    {"prompt": "q", "chosen": "a", "rejected": "b"},
    {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"},
     "rejected": {"from": "gpt", "value": "b"}},
    {"question": "q", "answer": "a"},
]  # fmt: skip


ODD = [None, True, 0, 1.5, "", " ", "x", "<think>x</think>", [], [None], [1], [[]], [["q", 1]], ["x"], {}, {"x": 1},
       [{}], [{"role": []}], [{"role": "user", "content": {}}], [{"from": {}, "value": 1}], [SAID], SAID]  # fmt: skip


def damaged(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The row with each thing anywhere in it taken away, or put in the place of by each of ODD."""

    def places(value: Any) -> Iterator[tuple[Any, ...]]:
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield (key,)
            if isinstance(value[key], dict | list):
                yield from ((key, *rest) for rest in places(value[key]))

    for *way, key in places(row):
        for odd in (..., *ODD):
            broken = json.loads(json.dumps(row))
            at: Any = broken
            for step in way:
                at = at[step]
            if odd is ...:
                del at[key]
            else:
                at[key] = odd
            yield broken


@pytest.mark.parametrize("row", GOOD, ids=lambda row: "-".join(row))
def test_any_one_thing_wrong_in_a_row(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "a.jsonl"
    for broken in damaged(row):
        path.write_text(f"{json.dumps(row)}\n{json.dumps(broken)}\n")
        for read in (read_conversations, read_preferences, read_problems):
            with suppress(ToolkitError):
                read(path)
        for name in FORMATS:
            with suppress(ToolkitError):
                convert(path, tmp_path / "b.jsonl", write_as=name)


ANYWHERE = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def endure(path: Path, out: Path) -> None:
    for read in (read_conversations, read_preferences, read_problems):
        with suppress(ToolkitError):
            read(path)
    for name in ("messages", "alpaca", "preference", ""):
        for suffix in (".jsonl", ".csv", ".parquet"):
            with suppress(ToolkitError):
                convert(path, out.with_suffix(suffix), write_as=name, leave_out=True)


@ANYWHERE
@given(rows=ROWS)
def test_any_json(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    endure(path, tmp_path / "b")


@ANYWHERE
@given(rows=ROWS, form=st.sampled_from(sorted(FORMATS)))
def test_any_json_taken_for_any_format(tmp_path: Path, rows: list[Any], form: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))
    for name in FORMATS:
        with suppress(ToolkitError):
            convert(path, tmp_path / "b.jsonl", read_as=form, write_as=name)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_a_check_of_any_json(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with suppress(ToolkitError):
        check(path, Characters(), against=[str(path)])


@ANYWHERE
@given(content=st.binary(max_size=60), suffix=st.sampled_from([".json", ".jsonl", ".csv", ".tsv", ".parquet", ""]))
def test_any_bytes(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    for read in (read_conversations, read_problems):
        with suppress(ToolkitError):
            read(path)


@ANYWHERE
@given(cells=st.lists(st.lists(st.sampled_from([*WORDS, *KEYS, "1", "a\nb"]), max_size=4), max_size=4))
def test_any_table(tmp_path: Path, cells: list[list[str]]) -> None:
    import csv

    path = tmp_path / "a.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(cells)
    endure(path, tmp_path / "b")


def test_columns_of_every_type(tmp_path: Path) -> None:
    from datetime import UTC, datetime
    from decimal import Decimal

    import pyarrow
    from pyarrow import parquet

    odd = [b"\xff", datetime(2026, 1, 1, tzinfo=UTC), Decimal("1.5"), [("a", 1)], {"a": {"b": [1]}}, float("inf")]
    types = [pyarrow.binary(), None, None, pyarrow.map_(pyarrow.string(), pyarrow.int64()), None, None]
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    for value, kind in zip(odd, types, strict=True):
        table = pyarrow.table({"messages": [messages], "odd": pyarrow.array([value], kind)})
        parquet.write_table(table, tmp_path / "a.parquet")
        endure(tmp_path / "a.parquet", tmp_path / "b")
        assert read_conversations(tmp_path / "a.parquet")[0].extra["odd"] == value
    table = pyarrow.table({"messages": [messages], "odd": [b"\xff"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ToolkitError, match=r"row 1: JSON cannot hold this row: a value is of type bytes"):
        convert(tmp_path / "a.parquet", tmp_path / "c.jsonl")
    for column in ("messages", "prompt"):
        parquet.write_table(pyarrow.table({column: [b"\xff"], "answer": [1]}), tmp_path / "a.parquet")
        endure(tmp_path / "a.parquet", tmp_path / "b")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_an_extra_that_is_nested_deeply(tmp_path: Path, suffix: str) -> None:
    deep = '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "a": %s1%s}\n'
    path = tmp_path / "a.jsonl"
    for depth in (100, 400, 900, 1500, 20_000):
        path.write_text(deep % ("[" * depth, "]" * depth))
        with suppress(ToolkitError):
            convert(path, tmp_path / f"b{suffix}", write_as="sharegpt")
            convert(tmp_path / f"b{suffix}", tmp_path / "c.jsonl", write_as="messages")
            assert json.loads((tmp_path / "c.jsonl").read_text())["a"] == json.loads(path.read_text())["a"]
