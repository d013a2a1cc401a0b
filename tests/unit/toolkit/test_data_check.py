"""The check finds every fault that is planted, with its row, and counts truly."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftagent.toolkit.data.check import Report, check
from ftagent.toolkit.data.languages import languages
from ftagent.toolkit.data.lengths import Characters, Tokens, histogram, summarise
from ftagent.toolkit.data.repeats import normalised
from ftagent.toolkit.errors import ToolkitError


def said(*texts: str, first: str = "user") -> list[dict[str, Any]]:
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]


def row(*texts: str, first: str = "user") -> dict[str, Any]:
    return {"messages": said(*texts, first=first)}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((entry if isinstance(entry, str) else json.dumps(entry)) + "\n" for entry in rows))
    return path


def found(report: Report) -> list[tuple[int, str]]:
    return [(fault.row, fault.kind) for fault in report.faults]


def test_a_clean_file_has_no_faults(tmp_path: Path) -> None:
    report = check(write(tmp_path / "a.jsonl", row("1?", "one"), row("2?", "two", "3?", "three")), Characters())
    assert report.faults == []
    assert (report.rows, report.unreadable, report.format, report.unit) == (2, 0, "messages", "characters")
    assert report.turns == summarise([2, 4])
    assert report.lengths == summarise([5, 12])
    assert report.learnt == summarise([3, 8])
    assert sum(entry.count for entry in report.histogram) == 2


TOOLS = [*said("1?", "let me see"), {"role": "tool", "content": "3"}, {"role": "assistant", "content": "3"}]
SYSTEM = {"role": "system", "content": "x"}


@pytest.mark.parametrize(
    ("planted", "kinds", "says"),
    [
        ("{", ["syntax"], "not JSON: Expecting property name enclosed in double quotes at column 2"),
        ('{"messages": NaN}', ["syntax"], "NaN is no JSON value"),
        ("\0\ud83d".encode("utf-8", "replace").decode(), ["syntax"], "not JSON"),
        ("[" * 200_000, ["syntax"], "not JSON: nested too deeply"),
        ({"instruction": "a", "output": "b"}, ["format"], "is alpaca (instruction and output), but"),
        ({"messages": [{"role": "robot", "content": ""}]}, ["role", "empty_turn"], "message 1 has role 'robot'"),
        ({"messages": [{"role": "user", "content": 1}]}, ["content"], 'message 1: "content" must be a string'),
        (row("only a question"), ["no_reply"], "nothing to learn"),
        (row("q", "a", "q"), ["ends_in_user"], "ends in a user turn"),
        ({"messages": [*said("a"), *said("b", "c")]}, ["role_order"], "messages 1 and 2 are both user turns"),
        (row("a", "q", "b", first="assistant"), ["role_order"], "the first turn, is the assistant's"),
        (
            {"messages": [*said("q"), SYSTEM, *said("a", first="assistant")]},
            ["role_order"],
            "message 2 is a system turn",
        ),
        ({"messages": TOOLS}, ["tool_turn"], "message 3 is a tool turn, which training refuses"),
        (row("q\0", "a"), ["character"], "message 1 has a control character, U+0000"),
        (row("q", "a\ufffd"), ["character"], "message 2 has the sign of a damaged character, U+FFFD"),
        (row("What is it?", "This."), ["duplicate"], "same as line 1"),
        (row("what  is it", "THIS"), ["duplicate"], "same as line 1 but for case, spacing and punctuation"),
    ],
)
def test_each_planted_fault_is_found_in_its_row(tmp_path: Path, planted: Any, kinds: list[str], says: str) -> None:
    path = write(tmp_path / "a.jsonl", row("What is it?", "This."), "", planted, row("And what is that?", "That."))
    report = check(path, Characters())
    assert found(report) == [(3, kind) for kind in kinds]
    assert says in report.faults[0].text
    assert report.faults[0].place == f"{path}:3"
    assert report.rows + report.unreadable == 3


def test_sums_that_differ_in_their_sign_are_no_duplicates(tmp_path: Path) -> None:
    rows = [row(question, "?!") for question in ("1+1", "1-1", "1.1", "11", "1 1")]
    assert check(write(tmp_path / "a.jsonl", *rows), Characters()).faults == []


@given(st.text())
def test_normalising_twice_changes_nothing_that_matters(text: str) -> None:
    assert normalised(f"  {text}\n") == normalised(text)
    assert "  " not in normalised(text)


def test_pairs_and_problems_are_checked_too(tmp_path: Path) -> None:
    pairs = [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": "r", "chosen": "a", "rejected": "a"},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
    ]
    report = check(write(tmp_path / "a.jsonl", *pairs), Characters())
    assert found(report) == [(2, "same_replies"), (3, "duplicate")]
    assert report.lengths == summarise([2, 2, 2])
    problems = [{"question": "q", "answer": 1}, {"question": "r", "answer": None}]
    report = check(write(tmp_path / "b.jsonl", *problems), Characters())
    assert found(report) == [(2, "format")]
    assert report.learnt is None


def test_overlap_with_other_files_of_other_formats(tmp_path: Path) -> None:
    test = tmp_path / "test.json"
    test.write_text(json.dumps([{"question": "How many?", "answer": "3"}, {"question": "And now?", "answer": "4"}]))
    asked = write(tmp_path / "asked.jsonl", {"id": "a", **row("Unanswered?")})
    same = write(tmp_path / "same.jsonl", row("x", "y"))
    path = write(
        tmp_path / "a.jsonl", row("New?", "1"), row("how many", "2"), row("Unanswered?", "3"), row("x", "y")
    )  # fmt: skip
    report = check(path, Characters(), against=[str(test), str(asked), str(same)])
    assert [(fault.row, fault.kind, fault.text) for fault in report.faults] == [
        (2, "overlap", f"asks the same as {test}: item 1 (line 1)"),
        (3, "overlap", f"asks the same as {asked}:1"),
        (4, "overlap", f"same as {same}:1"),
    ]
    with pytest.raises(ToolkitError, match="none: cannot be read"):
        check(path, Characters(), against=[str(tmp_path / "none")])


def test_what_cannot_be_read_at_all(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=r"a\.jsonl:1: no known format, it has 'text'"):
        check(write(tmp_path / "a.jsonl", {"text": "x"}), Characters())
    with pytest.raises(ToolkitError, match=r"a\.jsonl:1: not JSON"):
        check(write(tmp_path / "a.jsonl", "x", "y"), Characters())
    with pytest.raises(ToolkitError, match="has no rows"):
        check(write(tmp_path / "a.jsonl", ""), Characters())


@pytest.mark.model
def test_tokens_are_those_that_the_model_will_meet(tiny: Path, tokenizer: Any, tmp_path: Path) -> None:
    rows = [row("One?", "1"), row("Two?", "2 " * 40), row("<|im_end|>", "3")]
    report = check(write(tmp_path / "a.jsonl", *rows), Tokens(tiny, limit=60))
    assert found(report) == [(2, "too_long"), (3, "template")]
    # After the end of its turn the template writes a line break, of which nothing is learnt.
    whole = tokenizer.apply_chat_template(rows[0]["messages"], return_dict=False)
    assert report.lengths is not None
    assert report.lengths.least == len(whole) - 1
    assert report.limit == 60
    assert Tokens(tiny).limit == 8192
    with pytest.raises(ToolkitError, match="no tokenizer that can be loaded"):
        Tokens(tmp_path)


@pytest.mark.data
def test_real_problems_are_clean_and_english() -> None:
    import os

    mirror = Path(os.environ["FTAGENT_DATA_MIRROR"])
    report = check(mirror / "gsm8k/train.jsonl", Characters(), against=[str(mirror / "gsm8k/test.jsonl")])
    assert (report.rows, report.unreadable) == (7473, 0)
    assert {fault.kind for fault in report.faults} <= {"duplicate", "overlap"}
    assert report.languages["en"] > 0.99 * report.languages_of


def test_languages_are_told_and_code_is_not_guessed() -> None:
    texts = [
        "How many clips did Natalia sell altogether in April and May?",
        "Combien de clips Natalia a-t-elle vendus en tout en avril et en mai ?",
        "娜塔莉亚在四月和五月一共卖了多少个夹子？",
        "12 + 7 = ?",
    ]
    assert languages(texts) == ({"en": 1, "fr": 1, "zh": 1, "und": 1}, 4)
    counts, looked_at = languages(texts[:1] * 5000)
    assert looked_at < 2001
    assert counts == {"en": looked_at}


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30))
def test_every_value_is_in_one_bin(values: list[int]) -> None:
    bins = histogram(values)
    assert len(bins) <= 13
    assert all(entry.count == sum(entry.start <= value <= entry.end for value in values) for entry in bins)
    assert sum(entry.count for entry in bins) == len(values)
    assert bins[0].count
    assert bins[-1].count


@given(st.lists(st.integers(0, 1000), min_size=1))
def test_percentiles_are_values_that_enough_do_not_exceed(values: list[int]) -> None:
    summary = summarise(values)
    assert summary is not None
    for percent, value in ((50, summary.median), (90, summary.p90)):
        assert sum(other <= value for other in values) >= percent / 100 * len(values)
        assert sum(other < value for other in values) < percent / 100 * len(values)
