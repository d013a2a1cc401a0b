"""The overlap gate on files of conversations."""

from __future__ import annotations

import json
from pathlib import Path

from ftagent.evaluation.benchmark import Item, normalise
from ftagent.evaluation.overlap import OverlapGate
from ftagent.evaluation.procedural import ProceduralBenchmark

STORY = "Anna picks seven red apples every single morning before school starts and sells four of them to Ben"
ITEMS = [
    Item("a", f"Read the following problem with care and answer with one number only please: {STORY}?", "3"),
    Item("b", "Read the following problem with care and answer with one number only please: two plus two?", "4"),
]


def gate() -> OverlapGate:
    return OverlapGate(ITEMS, lambda text: frozenset((normalise(text),)))


def conversation(user: str, assistant: str) -> str:
    return json.dumps({"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]})


def test_hits_are_reported_with_their_lines(tmp_path: Path) -> None:
    lines = [
        conversation("What is five plus five?", "10"),
        conversation(ITEMS[0].question, "3"),
        "",
        conversation("An unrelated question", f"As was said, {STORY.lower()}, so 3."),
        conversation(ITEMS[1].question.upper(), "4"),
        '{"prompt": "' + STORY + '"}',
        f"not JSON at all: {STORY}",
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(lines) + "\n")
    hits = gate().check_file(path)
    assert [(hit.line, hit.item) for hit in hits] == [(2, "a"), (4, "a"), (5, "b"), (6, "a"), (7, "a")]
    assert str(hits[1]) == "line 4: 13 consecutive words of item a"


def test_shared_template_text_is_no_hit() -> None:
    assert (
        gate().hit("Read the following problem with care and answer with one number only please: nine plus one?")
        is None
    )


def test_the_instruction_after_a_question_hides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(conversation("Two plus two, please?\n\nGive a number.", "4"))
    items = [Item("c", "Two plus two, please?", "4")]
    found = OverlapGate(items, lambda text: frozenset((normalise(text),))).check_file(path, "Give a number.")
    assert [hit.item for hit in found] == ["c"]


def test_reordered_operands_are_caught_in_any_wording(tmp_path: Path) -> None:
    benchmark = ProceduralBenchmark("rg:chain_sum?min_terms=2&max_terms=2&min_digits=2&max_digits=2")
    items = benchmark.items("test", 50)
    plus = next(item for item in items if " + " in item.question)
    left, right = plus.meta["metadata"]["expression"].split(" + ")
    check = OverlapGate(items, benchmark.duplicate_keys, [row.question for row in benchmark.training_rows(100)])
    hit = check.hit(f"Tell me, what do {right} + {left} give?")
    assert hit is not None
    assert (hit.item, hit.kind) == (plus.id, "duplicate key")
    assert all(check.hit(row.question, row.answer) is None for row in benchmark.training_rows(100))
