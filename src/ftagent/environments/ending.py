"""Why a command ended, from what is known of it: one pure function."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from ftagent.core.types import End, Stage

Stopped = Literal["", "time", "memory", "processes"]
"""What we ended a command for; empty when it ended by itself."""
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals that somebody sent. All others are a process's own crash and count as `failed`."""


@dataclass(frozen=True)
class Ending:
    end: End
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""


def classify(stage: Stage, stopped: Stopped, code: int | None, oom_kills: int) -> Ending:
    """`code`: exit code, negative or 128 + n for signal n, None when nobody reported one.

    The kernel's count of out-of-memory kills outranks the exit code, because a shell or a pool that lost a child may
    well exit with 0; a stage that adapts does not. Exit code 137 alone is `killed`: it does not tell who sent it.
    """
    memory = stage.resources.memory_mb
    limit = f"the memory limit of {memory} MB" if memory else "the memory of this machine"
    number = _signal(code)
    if stage.adapts and code == 0:
        oom_kills = 0
    if stopped == "time":
        return Ending("timed_out", None, int(signal.SIGKILL), f"time limit of {stage.time_limit:g} s exceeded")
    if stopped == "memory":
        return Ending("out_of_memory", None, int(signal.SIGKILL), f"exceeded {limit}")
    if oom_kills and number == signal.SIGKILL:
        return Ending("out_of_memory", _exit_code(code), int(signal.SIGKILL), f"exceeded {limit}")
    if oom_kills:
        how = "was ended" if code is None else f"ended with exit code {_exit_code(code)}"
        return Ending(
            "out_of_memory", _exit_code(code), number, f"a child process exceeded {limit}; the command itself {how}"
        )
    if stopped == "processes":
        detail = f"more than {stage.resources.processes} processes"
        return Ending("killed", None, int(signal.SIGKILL), detail)
    if code is None:
        return Ending("lost", detail="the process that watched the command was killed; the result is unknown")
    if code == 0:
        return Ending("ok", 0)
    if number is not None and number in FROM_OUTSIDE:
        return Ending("killed", _exit_code(code), number, f"killed by {_name(number)}")
    if number is not None:
        return Ending("failed", _exit_code(code), number, f"crashed with {_name(number)}")
    return Ending("failed", code, None, f"exit code {code}")


def _signal(code: int | None) -> int | None:
    if code is not None and code < 0:
        return -code
    number = (code or 0) - 128
    return number if number in {int(known) for known in signal.Signals} else None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals, of which only the ends have names
        return f"signal {number}"


def _exit_code(code: int | None) -> int | None:
    return 128 - code if code is not None and code < 0 else code
