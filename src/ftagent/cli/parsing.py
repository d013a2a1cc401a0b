"""Words of the command line that need reading: scenario options, places in a run, lists of GPUs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from ftagent.core.errors import RequestError
from ftagent.core.events import Limits, Place
from ftagent.core.types import STEPS, StepName


def parse_options(words: Iterable[str]) -> dict[str, str]:
    """`key=value` words as a dict, keys in lower case. Raises RequestError for anything else and for a key twice."""
    options: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        key = key.strip().lower()
        if not equals or not key:
            raise RequestError(f"-o {word!r}: write -o key=value")
        if key in options:
            raise RequestError(f"-o {key} is given twice")
        options[key] = value
    return options


def parse_place(text: str) -> Place:
    """`LOOP` or `LOOP:STEP`. Raises RequestError."""
    loop, _, step = text.partition(":")
    if not loop.isdecimal() or (step or "propose") not in STEPS:
        raise RequestError(f"--from {text!r}: write LOOP or LOOP:STEP, STEP one of {', '.join(STEPS)}")
    return Place(int(loop), cast(StepName, step or "propose"))


def parse_loop(text: str) -> int | None:
    """A loop number, or None for `baseline`. Raises RequestError."""
    if text == "baseline":
        return None
    if not text.isdecimal():
        raise RequestError(f"LOOP {text!r}: write a loop number or `baseline`")
    return int(text)


def parse_gpus(text: str | None) -> tuple[str, ...]:
    """Device ids separated by commas, as a tuple; `auto` stays one word."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def parse_limits(loop_n: int | None, step_n: int | None, timeout: str | None, budget_usd: float | None) -> Limits:
    """The limits as given; None where an option was not given. Raises RequestError for what cannot be a limit."""
    from ftagent.core.budget import parse_duration

    for name, value in (("--loop-n", loop_n), ("--step-n", step_n)):
        if value is not None and value < 1:
            raise RequestError(f"{name} {value}: must be at least 1")
    if budget_usd is not None and not budget_usd >= 0:
        raise RequestError(f"--budget-usd {budget_usd}: must be 0 or more")
    seconds = parse_duration(timeout, "--timeout") if timeout is not None else None
    return Limits(loop_n, step_n, seconds, budget_usd)
