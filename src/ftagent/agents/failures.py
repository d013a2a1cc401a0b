"""A failed stage in few words: how it ended, where in the experiment's own files, what was said last."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from ftagent.agents.sections import Count
from ftagent.core.types import Execution

MAX_TOKENS = 1500
_FRAME = re.compile(r'^\s*File "(?P<path>[^"]+)", line (?P<line>\d+)(?:, in (?P<name>.+))?$')
_FOREIGN = re.compile(r"site-packages|dist-packages|/lib/python3|/ftagent/|^<")
_LONGEST_LINE = 400
_MESSAGE_LINES = 8
_FRAMES = 5
_ENDS = {
    "failed": "failed", "timed_out": "ran over its time limit", "out_of_memory": "ran out of memory",
    "killed": "was killed", "lost": "was lost by the environment", "ok": "ended",
}  # fmt: skip


def condense(failure: Execution, files: Collection[str], count: Count, limit: int = MAX_TOKENS) -> str:
    """At most `limit` tokens about `failure`; `files` are the experiment's own, whose frames are told."""
    lines = [_short(line) for line in failure.tail.split("\n")]
    trace, message, other = _taken_apart(lines)
    own = [frame for frame in trace if _is_own(frame, files)]
    told = [_head(failure), *message]
    if own:
        told += ["in the experiment's files:", *(f"  {_place(frame, files)}" for frame in own[-_FRAMES:])]
    if foreign := len(trace) - len(own):
        told.append(f"(frames of libraries left out: {foreign})")
    while len(told) > 1 and count("\n".join(told)) > limit:
        told.pop()
    return "\n".join([*told, *_last(other, limit - count("\n".join(told)) - 30, count)])


def _head(failure: Execution) -> str:
    after = f" after {failure.seconds:.1f} s" if failure.seconds else ""
    facts = [f"stage {failure.stage} {_ENDS[failure.end]}{after}"]
    for name, value in (("exit code", failure.exit_code), ("signal", failure.signal)):
        if value is not None:
            facts.append(f"{name} {value}")
    if failure.peak_mb:
        facts.append(f"peak memory {failure.peak_mb:.0f} MB")
    detail = f": {_short(failure.detail)}" if failure.detail else ""
    return ", ".join(facts) + detail


def _taken_apart(lines: Sequence[str]) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """(frame, its code) of the last traceback, the exception's message, and all other lines."""
    frames = [number for number, line in enumerate(lines) if _FRAME.match(line)]
    if not frames:
        return [], [], list(lines)
    starts = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    start = max([number for number in starts if number <= frames[-1]], default=frames[0])
    end = frames[-1] + 1
    while end < len(lines) and (not lines[end].strip() or lines[end].startswith("    ")):
        end += 1
    message = [line for line in lines[end : end + _MESSAGE_LINES] if line.strip()]
    trace = [
        (lines[number], lines[number + 1].strip() if number + 1 < len(lines) else "")
        for number in frames
        if number >= start
    ]
    return trace, message, [*lines[:start], *lines[end + _MESSAGE_LINES :]]


def _is_own(frame: tuple[str, str], files: Collection[str]) -> bool:
    found = _FRAME.match(frame[0])
    path = found["path"] if found else ""
    return not _FOREIGN.search(path) and any(path == name or path.endswith(f"/{name}") for name in files)


def _place(frame: tuple[str, str], files: Collection[str]) -> str:
    found = _FRAME.match(frame[0])
    if found is None:
        return frame[0].strip()
    name = next((name for name in files if found["path"] == name or found["path"].endswith(f"/{name}")), "")
    function = f" in {found['name']}" if found["name"] else ""
    return f"{name}:{found['line']}{function}: {frame[1]}"


def _last(lines: Sequence[str], room: int, count: Count) -> list[str]:
    """The last lines, as many as there is room for, and how many came before."""
    lines = [line for line in lines if line.strip()]
    kept: list[str] = []
    for line in reversed(lines):
        room -= count(line + "\n") + 1
        if room < 0:
            break
        kept.insert(0, line)
    if not kept:
        return []
    before = f" ({len(lines) - len(kept)} before them left out)" if len(kept) < len(lines) else ""
    return [f"last lines of the output{before}:", *kept]


def _short(line: str) -> str:
    """A line without its middle when it is very long; of a progress bar, what it showed last."""
    line = line.rstrip().rpartition("\r")[2]
    if len(line) <= _LONGEST_LINE:
        return line
    half = _LONGEST_LINE // 2
    return f"{line[:half]} [… {len(line) - 2 * half} characters left out …] {line[-half:]}"
