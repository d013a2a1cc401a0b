"""Capturing what a command prints."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftagent.core.errors import StorageFull
from ftagent.environments.output import MAX_LINE_BYTES, TAIL_BYTES, Capture


def capture(folder: Path, pieces: list[bytes], cap: int = 1 << 20) -> tuple[list[str], bytes, str]:
    lines: list[str] = []
    captured = Capture(folder / "log", lines.append, cap, clock=lambda: 0.0)
    for piece in pieces:
        captured.feed(piece)
    captured.close()
    captured.close()
    return lines, (folder / "log").read_bytes(), captured.tail()


@given(text=st.text(alphabet="ab\n\r é", max_size=200), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_pieces_do_not_matter(tmp_path_factory: pytest.TempPathFactory, text: str, cuts: list[int]) -> None:
    data = text.encode()
    edges = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    folder = tmp_path_factory.mktemp("capture")
    assert capture(folder, pieces) == capture(folder, [data])
    lines, log, tail = capture(folder, pieces)
    assert log == data
    wanted = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    assert tail == "\n".join(wanted)
    last = text.split("\n")[-1]
    assert lines == (wanted if last else wanted[:-1])


@given(sizes=st.lists(st.integers(0, 400), max_size=30), cap=st.integers(2, 200).map(lambda half: 2 * half))
def test_head_and_tail_are_kept_exactly(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], cap: int) -> None:
    data = bytes(range(65, 91)) * (sum(sizes) // 26 + 1)
    pieces, start = [], 0
    for size in sizes:
        pieces.append(data[start : start + size])
        start += size
    data = data[:start]
    _, log, _ = capture(tmp_path_factory.mktemp("capture"), pieces, cap)
    if len(data) <= cap:
        assert log == data
    else:
        note = b"\n[ftagent: %d bytes of output were dropped here]\n" % (len(data) - cap)
        assert log == data[: cap // 2] + note + data[-(cap // 2) :]


def test_a_line_without_end_is_cut_once(tmp_path: Path) -> None:
    lines, _, _ = capture(tmp_path, [b"x" * 50_000] * 5 + [b"\nnext\n"])
    assert [len(line) for line in lines] == [MAX_LINE_BYTES + len(" [cut]"), len("next")]


def test_a_progress_bar_without_newline_costs_no_memory_and_shows_its_last_state(tmp_path: Path) -> None:
    lines, _, tail = capture(tmp_path, [b"\r%05d%%" % number for number in range(40_000)] + [b"\n"])
    assert lines == ["39999%"]
    assert tail == "39999%\n"


def test_a_flood_thins_lines_and_tells_the_last(tmp_path: Path) -> None:
    lines, _, _ = capture(tmp_path, [b"%d\n" % number for number in range(2000)], cap=100)
    assert len(lines) < 200
    assert lines[0] == "0"
    assert lines[-1] == "1999"


def test_tail_is_whole_lines_and_bounded(tmp_path: Path) -> None:
    _, _, tail = capture(tmp_path, [b"line %d\n" % number for number in range(2000)])
    assert len(tail.encode()) <= TAIL_BYTES
    assert tail.startswith("line ")
    assert tail.endswith("line 1999\n")
    _, _, tail = capture(tmp_path, [b"\xff" * 10_000])
    assert 0 < len(tail.encode()) <= TAIL_BYTES


def test_full_disk_is_storage_full() -> None:
    captured = Capture(Path("/dev/full"), print, 100)
    with pytest.raises(StorageFull, match="/dev/full: cannot be written"):
        captured.feed(b"x")
    captured.abandon()
