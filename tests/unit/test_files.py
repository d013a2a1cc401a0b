"""Atomic writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftagent.core.errors import StorageFull
from ftagent.core.files import atomic_write, make_folder


@pytest.mark.parametrize("durable", [False, True])
def test_replaces_and_leaves_nothing_beside(tmp_path: Path, durable: bool) -> None:
    target = tmp_path / "a.json"
    atomic_write(target, "old", durable=durable)
    atomic_write(target, b"new", durable=durable)
    assert target.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_bare_name_is_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    atomic_write(Path("a"), "x", durable=True)
    assert (tmp_path / "a").read_text() == "x"


def test_make_folder_makes_parents_and_takes_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a/b/c")
    monkeypatch.chdir(tmp_path)
    make_folder("relative/b")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "b", "c", "relative"]


def test_make_folder_refuses_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "file/below")


def test_make_folder_in_a_folder_that_was_deleted_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(FileNotFoundError):
        make_folder("a/b")


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_lone_surrogate_does_not_lose_the_artefact(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", "x\ud800y")
    assert (tmp_path / "a").read_bytes() == b"x?y"


def test_folder_in_the_way_keeps_everything(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        atomic_write(tmp_path / "a", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    code = f"""
import subprocess, sys
from pathlib import Path
from ftagent.core.errors import StorageFull
from ftagent.core.files import atomic_write
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", {str(tmp_path)!r}], check=True)
folder = Path({str(tmp_path)!r})
atomic_write(folder / "a", "old")
try:
    atomic_write(folder / "a", b"n" * 200_000)
except StorageFull as error:
    print(error)
print((folder / "a").read_text(), [entry.name for entry in folder.iterdir()])
"""
    command = ["unshare", "-m", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "a: cannot be written: no space left" in done.stdout
    assert done.stdout.splitlines()[-1] == "old ['a']"


def test_unwritable_folder_is_storage_full(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(StorageFull, match="permission denied"):
            atomic_write(tmp_path / "a", "x")
        return
    code = f"""
import subprocess
from pathlib import Path
from ftagent.core.errors import StorageFull
from ftagent.core.files import atomic_write
subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", {str(tmp_path)!r}], check=True)
try:
    atomic_write(Path({str(tmp_path)!r}) / "a", "x")
except StorageFull as error:
    print(error)
"""
    done = subprocess.run(["unshare", "-m", sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "a: cannot be written: read-only file system" in done.stdout, done.stderr


def test_a_secret_is_never_readable_by_others_not_even_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes, original = set(), os.open

    def watching(*arguments: Any, **options: Any) -> int:
        descriptor = original(*arguments, **options)
        modes.add(os.fstat(descriptor).st_mode & 0o777)
        return descriptor

    monkeypatch.setattr(os, "open", watching)
    before = os.umask(0)
    try:
        atomic_write(tmp_path / "a", "secret", mode=0o600)
    finally:
        os.umask(before)
    assert modes == {0o600}
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
