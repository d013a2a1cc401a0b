"""The journal under torn writes, damage and old versions (docs/reliability.md, rows 2, 3 and 5)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ftagent.core import events
from ftagent.core.errors import JournalDamaged
from ftagent.core.journal import VERSION, Journal, decode, encode, read, read_records, repair
from ftagent.core.run_folder import RunFolder
from support import drive, noop

FIXTURES = Path(__file__).parent.parent / "fixtures" / "journals"


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("journal")
    drive(folder / "run", noop(folder))
    return folder / "run" / "journal.jsonl"


def copy(journal: Path, tmp_path: Path, data: bytes | None = None) -> Path:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(journal.read_bytes() if data is None else data)
    return path


def test_every_record_reads_as_written(journal: Path) -> None:
    for line, record in zip(journal.read_bytes().splitlines(), read_records(journal), strict=True):
        assert encode(record) == line + b"\n"
        assert decode(line) == record


def test_a_last_line_cut_at_any_byte_is_dropped_before_the_next_append(journal: Path, tmp_path: Path) -> None:
    data = journal.read_bytes()
    start = data.rstrip(b"\n").rfind(b"\n") + 1
    whole = read_records(journal)
    for cut in range(start, len(data)):
        path = copy(journal, tmp_path, data[:cut])
        writer = Journal(path)
        # All but the newline is there: nothing of the record is missing, so nothing of it is dropped.
        expected = whole if cut == len(data) - 1 else whole[:-1]
        assert writer.records == expected
        assert writer.torn == (0 if cut in (start, len(data) - 1) else cut - start)
        added = writer.append(events.Finished("stopped"))
        writer.close()
        assert read_records(path) == [*expected, added]


def test_reading_a_torn_journal_changes_nothing(journal: Path, tmp_path: Path) -> None:
    path = copy(journal, tmp_path, journal.read_bytes()[:-10])
    before = path.read_bytes()
    assert read(path).torn > 0
    Journal(path).close()
    assert path.read_bytes() == before


def test_one_flipped_byte_anywhere_is_reported_with_its_line(journal: Path, tmp_path: Path) -> None:
    data = journal.read_bytes()
    line_of = [1 + data[:at].count(b"\n") for at in range(len(data))]
    for at in range(len(data)):
        for flip in (0x01, 0x80):
            broken = bytearray(data)
            broken[at] ^= flip
            path = copy(journal, tmp_path, bytes(broken))
            with pytest.raises(JournalDamaged) as caught:
                read(path)
            assert caught.value.line == line_of[at], (at, flip)
            assert f":{line_of[at]}:" in str(caught.value)


def test_a_missing_or_repeated_line_is_damage(journal: Path, tmp_path: Path) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    for broken in (lines[:3] + lines[4:], [*lines[:4], lines[3], *lines[4:]]):
        with pytest.raises(JournalDamaged):
            read(copy(journal, tmp_path, b"".join(broken)))


def test_damage_is_never_written_over(journal: Path, tmp_path: Path) -> None:
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 1
    path = copy(journal, tmp_path, bytes(data))
    with pytest.raises(JournalDamaged):
        Journal(path)
    assert path.read_bytes() == bytes(data)


def test_repair_cuts_before_the_damage_and_keeps_the_original(journal: Path, tmp_path: Path) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    data = b"".join(lines[:5]) + b"garbage\n" + b"".join(lines[6:])
    path = copy(journal, tmp_path, data)
    assert repair(path) == (5, len(data) - len(b"".join(lines[:5])))
    assert read_records(path) == read_records(journal)[:5]
    assert (tmp_path / "journal.jsonl.damaged").read_bytes() == data
    assert repair(path) == (5, 0)


def test_a_newer_version_is_refused_in_words(journal: Path, tmp_path: Path) -> None:
    import zlib

    body = journal.read_bytes().splitlines()[0].rsplit(b',"crc32"', 1)[0].replace(b'"v":%d' % VERSION, b'"v":99')
    line = body + b',"crc32":"%08x"}\n' % zlib.crc32(body)
    with pytest.raises(JournalDamaged, match="newer ftagent"):
        read(copy(journal, tmp_path, line))


@pytest.mark.parametrize("fixture", sorted(FIXTURES.glob("v*")), ids=lambda path: path.name)
def test_every_released_version_stays_readable_and_resumable(fixture: Path, tmp_path: Path) -> None:
    shutil.copytree(fixture, tmp_path / "run")
    state = RunFolder(tmp_path / "run").state()
    assert [e.last_step for e in state.experiments] == ["feedback", "feedback"]
    assert state.experiments[1].validation is not None
    assert state.experiments[1].files["params.json"]
    drive(tmp_path / "run", noop(tmp_path))
    assert len(RunFolder(tmp_path / "run").state().experiments) == 3


def test_there_is_a_fixture_of_the_current_version() -> None:
    assert (FIXTURES / f"v{VERSION}" / "journal.jsonl").is_file()
