"""Finding what a reply holds: fenced blocks, named files, JSON objects. Lenient about form, strict about content."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_FENCE = re.compile(r"([ \t]*)(`{3,}(?=[^`]*$)|~{3,})(.*)$")
_TAG = re.compile(r"<(/?)json>", re.IGNORECASE)
_OBJECT_START = re.compile(r'\{\s*["}]')
_DECORATION = re.compile(r"^[\s>]*(?:#{1,6}\s*|[-*+]\s+|\d{1,3}[.)]\s+)?[*`\"']*")
_SAYS_FILE = re.compile(r"file(?:[ _]?(?:name|path))?[*`]*\s*:\s*", re.IGNORECASE)
_KEY = re.compile(r"\b(path|file|filename|title|name)[=:]\s*(?:\"([^\"]+)\"|'([^']+)'|([^\s}]+))", re.IGNORECASE)
_PATH = re.compile(r"[^\s`*\"'<>|:={}]*[^\s`*\"'<>|:={}./]\.[A-Za-z][A-Za-z0-9]{0,9}")
_LONGEST_NAME_LINE = 400
_SCANNED = 200_000
"""Characters at the end of a reply in which an object without a block is looked for."""
_STARTS = 200
"""How many places are tried as the start of one."""


@dataclass(frozen=True)
class Block:
    """A fenced block. `name` is that of a file, where the reply gives one."""

    info: str
    name: str
    text: str
    closed: bool


@dataclass(frozen=True)
class Parsed:
    """A reply taken apart."""

    blocks: tuple[Block, ...]
    rest: str
    """What is in no block, without the lines that name files."""


def parse(text: str) -> Parsed:
    """Take a reply apart. Linear in its length."""
    blocks: list[Block] = []
    rest: list[str] = []
    after_last = 0
    lines = iter(text.replace("\r\n", "\n").split("\n"))
    for line in lines:
        opening = _fence(line)
        if opening is None:
            rest.append(line)
            continue
        indent, fence, info = opening[1], opening[2], opening[3].strip()
        name = _name_in_info(info) or _name_above(rest, after_last)
        content, closed = _content(lines, fence, len(indent))
        if name or info or content or closed:  # a bare fence at the very end is one too many
            blocks.append(Block(info, name, content, closed))
        after_last = len(rest)
    return Parsed(tuple(blocks), "\n".join(rest))


def _fence(line: str) -> re.Match[str] | None:
    # Most lines are told by their first characters, which is much cheaper than the expression.
    return _FENCE.match(line) if line.lstrip(" \t").startswith(("```", "~~~")) else None


def _content(lines: Iterator[str], fence: str, indent: int) -> tuple[str, bool]:
    """The text up to the end of a block, and whether it has one.

    A fence inside that names a language opens a block of its own, whose end does not end this one: models write
    prompts and Markdown into files without making the outer fence longer.
    """
    kept: list[str] = []
    depth = 0
    for line in lines:
        inner = _fence(line)
        if inner is not None and inner[2][0] == fence[0] and len(inner[2]) >= len(fence):
            depth += 1 if inner[3].strip() else -1
            if depth < 0:
                return _joined(kept), True
        kept.append(line[:indent].lstrip(" \t") + line[indent:])
    return _joined(kept), False


def _joined(lines: list[str]) -> str:
    return "\n".join(lines) + "\n" if lines else ""


def _name_in_info(info: str) -> str:
    """`python path=a.py`, `file:a.py`, `python:a.py`, `a/b.py`."""
    if len(info) > _LONGEST_NAME_LINE or info.startswith("{"):
        return ""
    for key, *values in _KEY.findall(info):
        name = _tidy(next(filter(None, values), ""))
        if key.lower() in ("path", "file", "filename") or _PATH.fullmatch(name):
            return name
    for word in info.split():
        if _PATH.fullmatch(last := word.rpartition(":")[2]):
            return _tidy(last)
    return ""


def _name_above(rest: list[str], since: int) -> str:
    """The file that the last line before a block names; an empty line may stand between. The line is taken out."""
    for back in (1, 2):
        if len(rest) - back < since:
            break
        if rest[-back].strip():
            name = _name_in_line(rest[-back])
            if name:
                del rest[-back:]
            return name
    return ""


def _name_in_line(line: str) -> str:
    """The name in a line that says nothing else: `### file: a.py`, `**a/b.py**`, `1. a.py:`."""
    if len(line) > _LONGEST_NAME_LINE:
        return ""
    words = _DECORATION.sub("", line, count=1)
    if said := _SAYS_FILE.match(words):
        words = words[said.end() :]
        if quoted := re.match(r"[*]*`([^`]+)`", words):
            return _tidy(quoted[1])
        found = [_tidy(word) for word in words.split()] or [""]
        if len(found) == 1 or _PATH.fullmatch(found[0]):
            return found[0]
        return _tidy(words) if _PATH.fullmatch(found[-1]) else ""
    name = _tidy(words)
    return name if _PATH.fullmatch(name) else ""


def _tidy(name: str) -> str:
    return name.strip(" \t`*\"':").removeprefix("./")


def candidates(parsed: Parsed, text: str) -> list[str]:
    """Where a JSON object may be, the likeliest first: the last of a kind is what a model settled on."""
    whole = [text] if text.lstrip().startswith("{") else []
    tagged = list(_tagged(text))
    fenced = [_with_info(block) for block in parsed.blocks if _may_be_json(block)]
    return [*whole, *reversed(tagged), *reversed(fenced), *reversed(list(_bare(parsed.rest)))]


def _tagged(text: str) -> Iterator[str]:
    """What stands in `<json>…</json>`."""
    start: int | None = None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            yield text[start : tag.start()]
            start = None


def _may_be_json(block: Block) -> bool:
    language = block.info.partition("{")[0].split(" ")[0].lower()
    return language.startswith("json") or (not language and _with_info(block).lstrip().startswith("{"))


def _with_info(block: Block) -> str:
    """A block's text; some models begin an object in the line of the fence."""
    brace = block.info.find("{")
    return block.text if brace < 0 else f"{block.info[brace:]}\n{block.text}"


def _bare(text: str) -> Iterator[str]:
    """Objects in running text that begin a line or are the first."""
    text = text[-_SCANNED:]
    position = text.find("{")
    for _ in range(_STARTS):
        if position < 0:
            return
        try:
            _, end = _DECODER.raw_decode(text, position)
            yield text[position:end]
        except (ValueError, RecursionError):
            end = position + 1
            if _OBJECT_START.match(text, position):
                yield text[position:]  # for what is said about it
        after = text.find("\n{", end - 1)
        position = after + 1 if after >= 0 else -1


def decode(text: str) -> dict[str, Any]:
    """A JSON object, numbers finite. Raises ValueError with one line that its author can act on."""
    try:
        value = json.loads(text, parse_constant=_not_finite, parse_float=_finite)
    except json.JSONDecodeError as error:
        near = " ".join(text[max(0, error.pos - 30) : error.pos + 30].split())
        raise ValueError(f"it is no valid JSON: {error.msg} (line {error.lineno}, near `{near}`)") from None
    except RecursionError:
        raise ValueError("the JSON object is nested too deeply") from None
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
        raise ValueError(f"it is {kind} where one JSON object is wanted")
    return value


def _not_finite(name: str) -> float:
    raise ValueError(f"{name} is no number that JSON has; give a finite number or leave it out")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number; give a finite one")
    return value


_DECODER = json.JSONDecoder(parse_constant=_not_finite, parse_float=_finite)
