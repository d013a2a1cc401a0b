"""Rows 17 and 18: names cannot leave the workspace and links are not followed."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ftagent.core.errors import StageRefused
from ftagent.core.workspace import UnsafePath, Workspace, safe_parts

BAD_NAMES = [
    "", ".", "..", "/", "/etc/x", "//etc/x", "../x", "a/../../b", "a/..", "./../x", "a\0b", "x" * 300,
    "é" * 128, "a/" * 2100 + "b", "a/", "a/.", "\ud800",
]  # fmt: skip


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_name_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafePath) as caught:
        Workspace(tmp_path / "w").write({"good.py": "x", name: "y"})
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a", "./a", "a//b", "a/./b", "x" * 255, "new\nline", "-rf", "~", "a\\..\\b"])
def test_odd_names_stay_inside(tmp_path: Path, name: str) -> None:
    workspace = Workspace(tmp_path / "w")
    workspace.write({name: "content"})
    assert workspace.read(name) == b"content"
    assert names(tmp_path) == ["w"]


NAMES = st.one_of(
    st.text(max_size=12),
    st.lists(st.sampled_from(["..", ".", "", "a", "/", "link", "\0", "x" * 256]), max_size=6).map("/".join),
)


@settings(max_examples=300, deadline=None)
@given(name=NAMES)
@example(name="link/x")
@example(name="a/link/../x")
def test_any_name_writes_inside_or_is_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    top = tmp_path_factory.mktemp("case")
    outside = top / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (top / "w").mkdir()
    (top / "w" / "link").symlink_to(outside)
    before = snapshot(outside)
    workspace = Workspace(top / "w")
    try:
        workspace.write({name: "content"})
    except UnsafePath:
        assert names(top / "w") in (["link"], ["a", "link"])
    else:
        landed = top / "w" / "/".join(safe_parts(name))
        assert landed.resolve().is_relative_to((top / "w").resolve())
        assert landed.read_text() == "content"
    assert snapshot(outside) == before
    assert names(top) == ["outside", "w"]


def test_symlinked_parent_and_target_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "folder").symlink_to(outside)
    (tmp_path / "w" / "file").symlink_to(outside / "file")
    workspace = Workspace(tmp_path / "w")
    for name in ("folder/x", "file", "folder"):
        with pytest.raises(UnsafePath, match="link"):
            workspace.write({name: "overwritten"})
        with pytest.raises(UnsafePath):
            workspace.collect(name, tmp_path / "copy")
        with pytest.raises(UnsafePath):
            workspace.read(name)
        assert not workspace.exists(name)
    assert snapshot(outside) == {str(outside / "file"): b"secret"}
    assert not (tmp_path / "copy").exists()


def test_workspace_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "w").symlink_to("elsewhere")
    with pytest.raises(UnsafePath):
        Workspace(tmp_path / "w").write({"a": "x"})
    assert names(tmp_path / "elsewhere") == []


def test_collect_leaves_links_and_pipes_out_and_says_so(tmp_path: Path) -> None:
    source = tmp_path / "w" / "out"
    (source / "sub").mkdir(parents=True)
    (source / "weights").write_bytes(b"w")
    (source / "sub" / "new\nline").write_text("n")
    (source / "passwd").symlink_to("/etc/passwd")
    (source / "etc").symlink_to("/etc")
    os.mkfifo(source / "pipe")
    workspace = Workspace(tmp_path / "w")
    collected = workspace.collect("out", tmp_path / "copy")
    assert collected.files == ("sub/new\nline", "weights")
    assert collected.left_out == ("etc", "passwd", "pipe")
    assert sorted(snapshot(tmp_path / "copy").values()) == [b"n", b"w"]
    workspace.write({"out/weights": "second"})
    workspace.collect("out", tmp_path / "copy")
    assert (tmp_path / "copy" / "weights").read_bytes() == b"second"
    assert names(tmp_path) == ["copy", "w"]
    with pytest.raises(UnsafePath, match="plain file"):
        workspace.collect("out/pipe", tmp_path / "pipe-copy")


def test_missing_and_too_deep_are_the_experiments_fault(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    workspace.write({"a": "x"})
    with pytest.raises(StageRefused, match="'b' is not in the workspace"):
        workspace.collect("b", tmp_path / "copy")
    workspace.write({"d/" * 150 + "f": "x"})
    for act in (lambda: workspace.collect("d", tmp_path / "copy"), lambda: workspace.digest("d")):
        with pytest.raises(StageRefused, match="nested"):
            act()
    assert names(tmp_path) == ["w"]


def test_digest_tells_content_name_and_link_apart(tmp_path: Path) -> None:
    digests = set()
    for number, files in enumerate([{"m/a": "x"}, {"m/b": "x"}, {"m/a": "y"}, {"m/a": "x", "m/b": ""}]):
        workspace = Workspace(tmp_path / str(number))
        workspace.write(files)
        digests.add(workspace.digest("m"))
    (tmp_path / "0" / "m" / "b").symlink_to("a")
    digests.add(Workspace(tmp_path / "0").digest("m"))
    assert len(digests) == 5
    workspace = Workspace(tmp_path / "1")
    assert workspace.digest("m/b") == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


def test_a_swapped_parent_is_never_followed(tmp_path: Path) -> None:
    """A command that keeps replacing a folder by a link outwards while we write cannot catch us between."""
    outside, inside = tmp_path / "outside", tmp_path / "w"
    outside.mkdir()
    inside.mkdir()
    (inside / "real").mkdir()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for act in (
                lambda: (inside / "real").rename(inside / "aside"),
                lambda: (inside / "real").symlink_to(outside),
                lambda: (inside / "real").unlink(),
                lambda: (inside / "aside").rename(inside / "real"),
            ):
                # The writer makes folders that are missing, so any of these may find another thing there.
                with contextlib.suppress(OSError):
                    act()

    thread = threading.Thread(target=swap)
    thread.start()
    refused = 0
    try:
        for number in range(400):
            try:
                Workspace(inside).write({f"real/{number % 7}": "x"})
            except (StageRefused, OSError):
                refused += 1
    finally:
        stop.set()
        thread.join()
    assert names(outside) == []
    assert refused < 400


def test_a_size_limit_holds(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    workspace.write({"a": "x" * 100})
    assert len(workspace.read("a", max_bytes=100)) == 100
    with pytest.raises(StageRefused, match="100 bytes; at most 99"):
        workspace.read("a", max_bytes=99)
