"""Taking replies apart: which blocks, which names, which objects; and never slowly."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ftagent.llm.blocks import candidates, decode, parse


def files(text: str) -> dict[str, str]:
    return {block.name: block.text for block in parse(text).blocks if block.name}


@pytest.mark.parametrize(
    "line",
    [
        "### file: a/b.py", "### File: `a/b.py`", "## `a/b.py`", "**a/b.py**", "`a/b.py`:", "a/b.py:", "1. `a/b.py`",
        "- a/b.py", "#### **`a/b.py`**", "**File:** a/b.py", "### file: a/b.py (new)", "### file: ./a/b.py",
        "### file: a/b.py\n", "File name: a/b.py", "### filepath: 'a/b.py'", "> a/b.py",
    ],
)  # fmt: skip
def test_a_line_names_the_file_below(line: str) -> None:
    assert files(f"Some text.\n\n{line}\n```python\nx = 1\n```\nmore") == {"a/b.py": "x = 1\n"}


@pytest.mark.parametrize(
    "info",
    ["python path=a/b.py", 'python title="a/b.py"', "file:a/b.py", "python:a/b.py", "a/b.py", "python a/b.py",
     "{.python filename=a/b.py}"[1:], "py file='a/b.py' linenos"],
)  # fmt: skip
def test_the_fence_names_the_file(info: str) -> None:
    assert files(f"text\n```{info}\nx = 1\n```") == {"a/b.py": "x = 1\n"}


@pytest.mark.parametrize(
    "line",
    [
        "Change this in `a.py`:",
        "First, e.g.",
        "Run it like this:",
        "",
        "See a.py",
        "### Usage",
        "file: what it does is",
    ],
)
def test_other_lines_name_nothing(line: str) -> None:
    assert files(f"{line}\n```python\nx = 1\n```") == {}


def test_a_name_belongs_to_the_next_block_only() -> None:
    text = "### file: a.py\n```\n1\n```\n```\n2\n```\n\n\nb.py\n\n\n```\n3\n```"
    assert files(text) == {"a.py": "1\n"}


@pytest.mark.parametrize("name", ["Makefile", "my notes.txt", "../../etc/passwd", "/etc/x", "a\0b.py", "ü.py", ".env"])
def test_names_are_taken_as_they_are(name: str) -> None:
    assert files(f"### file: {name}\n```\nx\n```") == {name: "x\n"}


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("````md\n# T\n```sh\nls\n```\nend\n````", "# T\n```sh\nls\n```\nend\n"),
        ("~~~md\n```\nls\n```\n~~~", "```\nls\n```\n"),
        ("```md\nuse\n```sh\nls\n```\nend\n```", "use\n```sh\nls\n```\nend\n"),
        ('```python\nprompt = """\n```json\n{}\n```\n"""\n```', 'prompt = """\n```json\n{}\n```\n"""\n'),
        ("```\n```", ""),
        ("```\r\na\r\n```\r\n", "a\n"),
        ("  ```py\n  if x:\n      y\n z\n  ```", "if x:\n    y\nz\n"),
        ("```\n\x0c\x1d\u2028x\n```", "\x0c\x1d\u2028x\n"),
        ("```\na  \n\n\n```  ", "a  \n\n\n"),
    ],
)
def test_content_is_kept_as_it_is(text: str, content: str) -> None:
    (block,) = parse(f"### file: f\n{text}").blocks
    assert (block.name, block.text, block.closed) == ("f", content, True)


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx = 1",
        "````md\n```\nx\n```\n",
        "```python\nprompt = '''\n```json\n'''\n```\n",
        "```python\nx = 1\n### file: b.py\n```python\ny = 1\n```\n",
        "```\nx = 1\n``",
    ],
)
def test_a_block_without_an_end_is_told(text: str) -> None:
    blocks = parse(f"### file: a.py\n{text}").blocks
    assert [block.closed for block in blocks] == [False]


def test_a_fence_too_many_at_the_end_is_nothing() -> None:
    assert [block.closed for block in parse("### file: a\n```\nx\n```\n```").blocks] == [True]


def first(text: str) -> Any:
    for found in candidates(parse(text), text):
        try:
            return decode(found)
        except ValueError:
            continue
    return None


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}', ' \n{"a": 1}\n', '```json\n{"a": 1}\n```', 'x\n```\n{"a": 1}\n```\ny', '<json>{"a": 1}</json>',
        'text <JSON>\n{"a": 1}\n</JSON> text', 'Here: {"a": 1} as asked',
        '```json\n{"a": 0}\n```\nNo:\n```json\n{"a": 1}\n```',
        '```json {"a": 1}\n```', '```json {"a": 1}```', '```json\n{"a": 1}', '{"a": 1}\n\nI chose 1 because {x}.',
        '{x} is wrong\n{"a": 1}', '```python\nx = {}\n```\n```json\n{"a": 1}\n```', '{"a": 0}\n{"a": 1}',
        '### file: a.json\n```json\n{"a": 1}\n```', '~~~json5\n{"a": 1}\n~~~',
        '<json>{"a": 0}</json><json>{"a": 1}</json>',
    ],
)  # fmt: skip
def test_an_object_is_found(text: str) -> None:
    assert first(text) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"a": NaN}', "NaN is no number"), ('{"a": -Infinity}', "-Infinity is no number"),
        ('{"a": 1e999}', "too large"),
        ("[1]", "a list"), ("null", "null"), ('"x"', "a text"), ("3", "a number"), ("true", "true or false"),
        ('{"a": 1,}', "no valid JSON"), ("{", "line 1"), ("", "no valid JSON"), ('{"a":' * 100_000, "nested"),
        ('{"a": ' + "9" * 5000 + "}", "4300"), ("{'a': 1}", "near `{'a': 1}`"),
    ],
)  # fmt: skip
def test_what_is_no_object_is_refused_in_one_line(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=part.replace("(", r"\(")) as caught:
        decode(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["<json>" * 300_000, "```\n" * 100_000, "```a\n" * 200_000, "\n{" * 1_000_000, "{" * 2_000_000, '\n{"a":' * 300_000,
     "`" * 2_000_000, "```" + " " * 2_000_000 + "x", " " * 2_000_000, "<think>" * 300_000, "a.b" * 700_000 + "\n```\n",
     "x" * 2_000_000 + "\n```\nx\n```"],
    ids=lambda text: text[:8].strip() or "blank",
)  # fmt: skip
def test_much_of_anything_are_taken_apart_quickly(text: str) -> None:
    started = time.process_time()
    candidates(parse(text), text)
    assert time.process_time() - started < 3.0
