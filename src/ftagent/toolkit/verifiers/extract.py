"""Lenient extraction of the answer from an output; the same for baseline and candidates.

Explicit marks win over guesses, and the last mark of a kind over earlier ones: models restate and correct.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation

ANSWER_IS = re.compile(
    r"(?:final\s+answer|answer|result|solution)\s*(?:\*\*)?\s*(?:is|=|:)\s*(?:\*\*)?\s*[:=]?\s*(\S[^\n]*)",
    re.IGNORECASE,
)
MARKS = (
    "<think>…</think> is removed; then the last \\boxed{…} counts, else what follows ####, else <answer>…</answer>, "
    'else "answer" in a JSON object, else what follows "the answer is"'
)
"""`marked_answer` in words."""
MAX_CHARACTERS = 20_000
"""Of an output, from its end: no honest answer is longer, and extraction stays linear."""


def strip_thinking(text: str) -> str:
    """Without `<think>…</think>`; an unclosed one runs to the end, a lone closing tag ends all before."""
    text = re.sub(r"<think(?:ing)?>.*?</think(?:ing)?>", "", text, flags=re.DOTALL | re.IGNORECASE)
    text = re.split(r"</think(?:ing)?>", text, flags=re.IGNORECASE)[-1]
    return re.split(r"<think(?:ing)?>", text, flags=re.IGNORECASE)[0].strip()


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{…}` or `\fbox{…}` with balanced braces; an unclosed one runs on."""
    starts = list(re.finditer(r"\\(?:boxed|fbox|framebox)\s*\{", text))
    if not starts:
        return None
    begin = starts[-1].end()
    depth = 1
    for position in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[begin:position].strip()
    return text[begin:].strip()


def last_json_answer(text: str) -> str | None:
    """The value of `answer`, `output`, `result` or `final_answer` in the last JSON object that has one."""
    decoder = json.JSONDecoder()
    for start in reversed([match.start() for match in re.finditer(r"\{", text)][-50:]):
        try:
            value, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if not isinstance(value, dict):
            continue
        for key in ("answer", "output", "final_answer", "result"):
            if key in value:
                found = value[key]
                return found if isinstance(found, str) else json.dumps(found)
    return None


def marked_answer(text: str) -> str | None:
    r"""After `strip_thinking`: the last `\boxed{}`, else `####`, `<answer>`, JSON, else "the answer is"."""
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed
    if "####" in text:
        lines = text.rsplit("####", 1)[1].strip().splitlines()
        return lines[0].strip() if lines else ""
    tags: list[str] = re.findall(r"<answer>(.*?)(?:</answer>|$)", text, flags=re.DOTALL | re.IGNORECASE)
    if tags:
        return tags[-1].strip()
    found = last_json_answer(text)
    if found is not None:
        return found
    said: list[str] = ANSWER_IS.findall(text)
    return said[-1].strip().strip("*").strip() if said else None


def numbers_in(text: str) -> list[str]:
    """Plain decimal numbers in order, without thousands commas and `$`. A minus between two operands is an
    operator, not a sign."""
    found: list[str] = []
    for match in re.finditer(r"\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\w))?|(?<!\d)\.\d+", text):
        digits = match.group().replace(",", "")
        before = text[: match.start()].rstrip("$ \t\\")
        sign = ""
        if before.endswith(("-", "−", "–")):
            left = before[:-1].rstrip()
            adjacent = match.start() == len(before) or text[match.start() - 1] in "$\\"
            operator = bool(left) and (left[-1].isalnum() or left[-1] in ")]}%")
            after_word = before[:-1] != left and not left[-1:].isdigit()
            if not operator or (adjacent and after_word) or re.search(r"\b(?:is|be|equals|to)$", left):
                sign = "-"
        found.append(sign + digits)
    return found


def number_of(text: str) -> str | None:
    """The number that an answer states: after the last `=` if there is one, then the first number."""
    numbers = numbers_in(text.rsplit("=", 1)[-1]) or numbers_in(text)[-1:]
    return numbers[0] if numbers else None


def is_plain(text: str) -> bool:
    """Whether `text` states one number and no formula: units and currency may surround it."""
    return not re.search(r"\\(?:[dt]?frac|sqrt|pi|cdot|times)|[\d)}]\s*[/^*+]\s*[\d({\\]", text)


def decimal_of(text: str) -> Decimal | None:
    """A plain number as a Decimal, else None. `1,000.0` equals `1000`."""
    if len(text) > 200:
        return None
    try:
        value = Decimal(text.strip().replace(",", "").replace("−", "-").lstrip("$"))
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def extract_number(output: str) -> str | None:
    """Text of the number that an output answers with: from its mark, else its last number, else None."""
    text = strip_thinking(output[-MAX_CHARACTERS:])
    marked = marked_answer(text)
    if marked is not None:
        stated = number_of(marked)
        if stated is not None:
            return stated
    numbers = numbers_in(text)
    return numbers[-1] if numbers else None


def extract_texts(output: str) -> list[str]:
    """Readings of an answer that is no number, best first: what is marked, all of it, its last line."""
    text = strip_thinking(output[-MAX_CHARACTERS:])
    marked = marked_answer(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    readings = [unwrap(marked)] if marked else []
    readings += [text, *lines[-1:]]
    readings += [reading.rstrip(".") for reading in readings]
    return list(dict.fromkeys(reading for reading in readings if reading))


def unwrap(text: str) -> str:
    r"""Without `$…$`, `\text{…}`, backticks and bold marks around all of it."""
    text = text.strip("$`* ")
    inner = re.fullmatch(r"\\(?:text|mathrm|texttt)\{(.*)\}", text, flags=re.DOTALL)
    return inner.group(1).strip() if inner else text
