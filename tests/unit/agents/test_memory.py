"""Memory across runs: what is kept of a run, what never is, and what is found again."""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftagent.agents import memory
from ftagent.agents.lessons import Task, one_line
from ftagent.agents.memory import Embedder, Query, clear, count, find, lessons_for, recall, remember
from ftagent.core import events
from ftagent.core.errors import FtagentError
from ftagent.core.journal import Journal
from ftagent.core.run_folder import RunFolder
from ftagent.core.statistics import score_of
from ftagent.core.types import Brief, Execution, Feedback, Hypothesis, Score, Split
from support import noop

TASK = Task("llm", "rg:chain_sum", "smollm2-135m")
ITEMS = 40


def score(rate: float, prefix: str = "validation", metric: str = "accuracy") -> Score:
    outcomes = {f"{prefix}-{index}": float(index < round(rate * ITEMS)) for index in range(ITEMS)}
    return score_of(metric, outcomes)


class Writer:
    """Writes a run's journal as the loop would, one loop at a time."""

    def __init__(self, path: Path, task: Task = TASK, baseline: float = 0.25) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.folder = RunFolder(path)
        request = {"scenario": task.scenario, "benchmark": task.benchmark, "base_model": task.base_model}
        self.folder.write_json(self.folder.record, {"request": request})
        self.write(events.Created(task.scenario, "accuracy", "maximize", 0, events.Limits(), sealed=True))
        self.write(events.Scored(None, "validation", score(baseline)))
        self.loops = 0

    def write(self, *given: events.Event) -> None:
        journal = Journal(self.folder.journal)
        for event in given:
            journal.append(event)
        journal.close()

    def loop(
        self, title: str, rate: float | None = 0.5, parent: int | None = None, params: dict[str, object] | None = None,
        failure: str = "train: out of memory", files: Sequence[str] = ("a = 1\n",), kind: str = "improve",
    ) -> Writer:  # fmt: skip
        loop, self.loops = self.loops, self.loops + 1
        self.write(events.Proposed(loop, Hypothesis(title, "why", parent, kind, params=params or {})))  # type: ignore[arg-type]
        for attempt, text in enumerate(files):
            path = self.folder.attempt(loop, attempt) / "train.py"
            path.parent.mkdir(parents=True)
            path.write_text(text)
            self.write(events.Coded(loop, attempt, {"train.py": hashlib.sha256(text.encode()).hexdigest()}))
            if attempt < len(files) - 1:
                broken = Execution("train", "failed", 1.0, exit_code=1, tail="Traceback\nKeyError: 'answer'")
                self.write(events.StageFinished(loop, attempt, "debug", None, broken))
        self.write(events.Built(loop))
        if rate is not None:
            self.write(events.Scored(loop, "validation", score(rate)))
        self.write(events.Ran(loop, "" if rate is not None else failure, 1.0))
        self.write(events.Reflected(loop, Feedback("accept" if rate is not None else "failed", "as measured")))
        return self

    def kept(self, path: Path) -> int:
        return remember(path, self.folder.state(), self.folder)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "files" / "memory.sqlite"


@pytest.fixture
def run(tmp_path: Path) -> Writer:
    writer = Writer(tmp_path / "log" / "first")
    writer.loop("Train longer", 0.6, params={"steps": 10, "rank": 8})
    writer.loop("Raise the learning rate", None, parent=0, params={"steps": 10, "rank": 8, "rate": 0.1})
    return writer.loop(
        "More data", 0.9, parent=0, params={"steps": 30, "rank": 8}, files=("a = b['answer']\n", "a = 2\n")
    )


def texts(path: Path) -> list[str]:
    return [stored.lesson.text() for stored in find(path)][::-1]


def test_a_lesson_tells_task_change_effect_with_interval_failure_and_fix(run: Writer, path: Path) -> None:
    assert run.kept(path) == 3
    first, second, third = texts(path)
    where = "rg:chain_sum with smollm2-135m, run first loop"
    assert first == (
        f"{where} 0: Train longer (rank 8, steps 10): accuracy +0.350 against the baseline "
        "(95 % interval +0.176 to +0.490, 40 validation items): better"
    )
    assert second == f"{where} 1: Raise the learning rate (rate 0.1): failed, train: out of memory"
    assert "More data (steps 10 -> 30): accuracy +0.300 against loop 0" in third
    assert "failed at first, train: exit code 1: KeyError: 'answer'; mended by a change of train.py: " in third
    assert third.endswith("-a = b['answer'] / +a = 2")


def test_mending_a_failed_parent_is_a_lesson_about_that_failure(tmp_path: Path, path: Path) -> None:
    run = Writer(tmp_path / "run").loop("Large batch", None).loop("Smaller batch", 0.5, parent=0, kind="debug")
    run.kept(path)
    assert "failed at first, loop 0: train: out of memory; mended by Smaller batch" in texts(path)[1]
    # A parent without a score is nothing to compare with.
    assert "accuracy +0.250 against the baseline" in texts(path)[1]


def test_remembering_again_adds_nothing_and_a_longer_run_adds_its_loops(run: Writer, path: Path) -> None:
    assert (run.kept(path), run.kept(path)) == (3, 0)
    assert run.loop("Another idea").kept(path) == 1
    assert count(path) == 4


def test_a_loop_that_is_taken_back_is_forgotten_and_its_new_version_kept(run: Writer, path: Path) -> None:
    run.kept(path)
    run.write(events.Rewound(1, "propose"))
    run.loops = 1
    (run.folder.path / "Loop_1").rename(run.folder.path / "old")
    assert run.loop("Lower the learning rate").kept(path) == 1
    assert [stored.lesson.title for stored in find(path)] == ["Lower the learning rate", "Train longer"]


def test_a_fork_does_not_store_the_loops_of_its_origin_again(run: Writer, path: Path, tmp_path: Path) -> None:
    import shutil

    run.kept(path)
    shutil.copytree(run.folder.path, tmp_path / "log" / "fork")
    fork = RunFolder(tmp_path / "log" / "fork")
    assert remember(path, fork.state(), fork) == 0
    assert count(path, "first") == 3


def test_an_unfinished_and_an_abandoned_loop_are_no_lessons(run: Writer, path: Path) -> None:
    loop, why = run.loops, "no usable proposal"
    run.write(events.Proposed(loop, Hypothesis(why, why, abandoned=why)), events.Built(loop, why))
    run.write(events.Ran(loop, why), events.Reflected(loop, Feedback("failed", why)))
    run.write(events.Proposed(loop + 1, Hypothesis("Not there yet", "why")))
    assert run.kept(path) == 3


@pytest.mark.parametrize("split", ["test", "confirm"])
def test_no_value_of_a_sealed_split_is_kept(run: Writer, path: Path, split: Split) -> None:
    canary = score(0.825, "canary", "canary-metric")
    sealed = [events.Scored(None, split, score(0.775, "canary", "canary-metric")), events.Scored(2, split, canary)]
    reason = "McNemar exact on 40 test items: difference +0.0500"
    selected = events.Selected(2, "improved", "test", 0.0425, 1, reason)
    run.write(events.TestOpened("finish", (2,)), *sealed, selected, events.Finished("completed"))
    assert run.kept(path) == 3
    lines = " ".join(recall(path, Query("more data canary", TASK), k=50))
    for trace in ("canary", "0.825", "0.82", "82.5", "0.775", "0.77", "0.0425", "0.0500", "McNemar"):
        assert trace.encode() not in path.read_bytes(), trace
        assert trace not in lines, trace


def test_lessons_of_the_same_task_come_first_then_the_benchmark_then_the_scenario(tmp_path: Path, path: Path) -> None:
    tasks = {
        "same": TASK,
        "model": Task("llm", "rg:chain_sum", "other-model"),
        "settings": Task("llm", "rg:chain_sum?min_terms=2", "other-model"),
        "scenario": Task("llm", "gsm8k", "smollm2-135m"),
        "other": Task("hpo", "", ""),
    }
    for name, task in reversed(tasks.items()):
        Writer(tmp_path / name, task).loop(f"Warm up {name}").kept(path)
    found = recall(path, Query("warm up", TASK), k=9)
    order = [next(name for name in tasks if f"run {name} " in line) for line in found]
    assert (order[0], {*order[1:3]}, order[3:]) == ("same", {"model", "settings"}, ["scenario", "other"])
    # Without a word in common, what lies further off than the benchmark is not offered.
    assert len(recall(path, Query("zebra", TASK), k=9)) == 3
    assert recall(path, Query("", Task("tabular")), k=9) == []


def test_within_a_task_the_more_relevant_come_first_and_the_asking_run_is_left_out(tmp_path: Path, path: Path) -> None:
    run = Writer(tmp_path / "one").loop("Shuffle the rows").loop("Longer warm up of the learning rate").loop("Dropout")
    run.kept(path)
    assert "Longer warm up" in recall(path, Query("warming up the learning rates", TASK))[0]
    assert len(recall(path, Query("rows", TASK), k=2)) == 2
    assert recall(path, Query("rows", TASK, run.folder.path)) == []


def test_the_same_change_is_told_once(tmp_path: Path, path: Path) -> None:
    for name in ("one", "two"):
        Writer(tmp_path / name).loop("Train longer", params={"steps": 3}).kept(path)
    assert len(recall(path, Query("longer", TASK))) == 1


def test_what_a_new_run_is_told_follows_its_brief(run: Writer, path: Path, tmp_path: Path) -> None:
    run.kept(path)
    brief: Brief = noop(tmp_path).brief()
    told = lessons_for(path, TASK, brief, k=2)
    assert len(told) == 2
    assert all("\n" not in line and line.startswith("rg:chain_sum") for line in told)
    assert lessons_for(path.with_name("absent.sqlite"), TASK, brief) == ()
    assert not path.with_name("absent.sqlite").exists()


class Letters:
    """Embeds a text as how often each letter is in it, and counts the texts."""

    model = "letters"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, given: Sequence[str]) -> list[list[float]]:
        self.asked.append(len(given))
        return [[float(text.lower().count(chr(97 + index))) for index in range(26)] for text in given]


def test_an_embedder_ranks_and_its_vectors_are_kept(tmp_path: Path, path: Path) -> None:
    Writer(tmp_path / "one").loop("aaaa").loop("zzzzzzzzzzzzzzzz").loop("qqqqqqqqqqqqqqqqq").kept(path)
    letters = Letters()
    embed = Embedder("letters", letters)
    assert "zzzz" in recall(path, Query("z", TASK), embed=embed)[0]
    assert "qqqq" in recall(path, Query("q", TASK), embed=embed)[0]
    assert letters.asked == [4, 1]
    recall(path, Query("q", TASK), embed=Embedder("another model", letters))
    assert letters.asked == [4, 1, 4]


def test_an_embedder_that_fails_leaves_the_search_by_words(run: Writer, path: Path) -> None:
    run.kept(path)

    def broken(given: Sequence[str]) -> list[list[float]]:
        raise FtagentError("no connection")

    for embed in (broken, lambda given: [[1.0]]):
        notes: list[str] = []
        assert "More data" in recall(path, Query("data", TASK), embed=Embedder("m", embed), note=notes.append)[0]
        assert len(notes) == 1
        assert "by words alone" in notes[0]
    strange = Embedder("strange", lambda given: [[float("nan")], *([float("inf")] * (i % 3) for i in range(3))])
    assert len(recall(path, Query("data", TASK), embed=strange)) == 3


@pytest.mark.parametrize("damage", [b"", b"this is no database at all, whatever its name says" * 50, b"\x00" * 5000])
def test_a_damaged_memory_is_set_aside_with_a_note(run: Writer, path: Path, damage: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(damage)
    path.with_name("memory.sqlite-journal").write_bytes(b"left behind")
    notes: list[str] = []
    assert remember(path, run.folder.state(), run.folder, notes.append) == 3
    assert count(path) == 3
    if damage:
        assert len(notes) == 1
        assert "set aside as memory.sqlite.damaged-1" in notes[0]
        assert path.with_name("memory.sqlite.damaged-1").read_bytes() == damage


def test_flipped_bytes_never_end_a_run(run: Writer, path: Path) -> None:
    run.kept(path)
    recall(path, Query("data", TASK), embed=Embedder("letters", Letters()))
    sound, rng = path.read_bytes(), random.Random(1)
    for _ in range(20):
        text = bytearray(sound)
        for _ in range(rng.choice((1, 8, 200))):
            text[rng.randrange(len(text))] ^= 1 << rng.randrange(8)
        path.write_bytes(text)
        found = recall(path, Query("data answer", TASK), embed=Embedder("letters", Letters()))
        assert all(isinstance(line, str) for line in found)
        run.kept(path)
        clear(path)


def test_a_memory_that_cannot_be_used_is_a_note(run: Writer, path: Path, tmp_path: Path) -> None:
    (tmp_path / "files").write_text("a file where the folder should be")
    notes: list[str] = []
    assert remember(path, run.folder.state(), run.folder, notes.append) == 0
    (tmp_path / "files").unlink()
    run.kept(path)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    assert recall(path, Query("data", TASK), note=notes.append) == []
    assert ["FTAGENT_MEMORY=False turns it off" in note for note in notes] == [True, True]
    assert "version 9" in notes[1]


def test_what_is_cleared_is_gone_from_the_file(run: Writer, path: Path, tmp_path: Path) -> None:
    other = Writer(tmp_path / "log" / "second").loop("Unmistakable xylophone").loop("Another")
    run.kept(path)
    other.kept(path)
    recall(path, Query("x", TASK), embed=Embedder("letters", Letters()))
    assert b"xylophon" in path.read_bytes()
    assert clear(path, "second") == 2
    assert b"xylophon" not in path.read_bytes()
    assert (count(path), count(path, str(tmp_path / "log" / "first"))) == (3, 3)
    assert clear(path) == 3
    assert texts(path) == []
    assert recall(path, Query("data", TASK)) == []
    assert clear(path.with_name("absent.sqlite")) == 0


def test_runs_that_end_together_lose_nothing(tmp_path: Path, path: Path) -> None:
    writers = [Writer(tmp_path / str(number)).loop(f"Idea {number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda writer: writer.kept(path), writers)) == [1] * 8
    assert count(path) == 8


def test_the_oldest_make_room(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MOST_LESSONS", 2)
    for number in range(3):
        Writer(tmp_path / str(number)).loop(f"Idea {number}").kept(path)
    assert [stored.lesson.title for stored in find(path)] == ["Idea 2", "Idea 1"]


WEIRD = [
    '"', "'", '"; DROP TABLE lessons; --', "NEAR(a b)", "a AND OR NOT", "title:x", "^a", "a*", "{a b}: c", "-",
    "\x00", "\ud800", "é∂√", "(", '"unclosed', "🙂", "a" * 5000, "- " * 3000, "\x1b[2J", "\u202e\u2028",
]  # fmt: skip


def test_weird_texts_are_stored_and_found(tmp_path: Path, path: Path) -> None:
    for number, text in enumerate(WEIRD):
        safe = text.replace("\ud800", "?")
        Writer(tmp_path / str(number)).loop(f"{safe} marker", None, failure=safe).kept(path)
    for text in WEIRD:
        notes: list[str] = []
        found = recall(path, Query(f"{text} marker", TASK), k=100, note=notes.append)
        assert len(found) >= len(WEIRD) - 3
        assert notes == []
        assert all(line.isprintable() and len(line) <= 600 for line in found)
        assert find(path, text) is not None


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    Writer(folder / "run").loop("Train longer on 'quoted' data").kept(folder / "memory.sqlite")
    return folder / "memory.sqlite"


@settings(max_examples=15)
@given(text=st.text(max_size=80))
def test_any_text_can_be_asked_for(filled: Path, text: str) -> None:
    notes: list[str] = []
    assert len(recall(filled, Query(text, TASK), note=notes.append)) == 1
    find(filled, text, note=notes.append)
    assert notes == []


@given(text=st.text(max_size=80), width=st.integers(5, 40))
def test_one_line_is_one_bounded_line(text: str, width: int) -> None:
    line = one_line(text, width)
    assert len(line) <= width
    assert line == " ".join(line.split())
    assert line.encode().decode() == line
