"""kill -9 at every operation on files while a better model is laid out: the old one or the new one is there whole."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftagent.core.outputs import point, replace_folder
from support.children import in_a_child

FILES = 5
_WATCHED = ("os.", "shutil.", "open")


def make(path: Path, content: str) -> None:
    path.mkdir()
    for number in range(FILES):
        (path / f"part-{number}").write_text(content)


def killed_at(count: int, work: Callable[[], object]) -> Callable[[], object]:
    """`work`, whose process dies before its `count`-th operation on files."""

    def session() -> None:
        left = count

        def hook(event: str, _: Any) -> None:
            nonlocal left
            if event.startswith(_WATCHED):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()

    return session


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux swaps two names in one step")
def test_a_kill_leaves_the_old_model_or_the_new_one_whole(tmp_path: Path) -> None:
    seen = set()
    for count in range(1, 1000):
        run = tmp_path / f"run-{count}"
        run.mkdir()
        make(run / "best_overall_model", "old")
        point(run / "best", "best_overall_model")
        make(run / ".best.new", "new")

        def work(run: Path = run) -> None:
            replace_folder(run / ".best.new", run / "best_overall_model")
            point(run / "best", "best_overall_model")

        status = in_a_child(killed_at(count, work))
        contents = {path.read_text() for path in (run / "best").iterdir()}
        assert len(list((run / "best").iterdir())) == FILES
        assert len(contents) == 1
        seen |= contents
        if not os.WIFSIGNALED(status):
            break
        shutil.rmtree(run)
    assert status == 0
    assert count > 5
    assert seen == {"old", "new"}
