"""A normal form of arithmetic expressions in which the order of commuting operands does not matter.

`2 + 3` and `3 + 2` are one item, and so are `4 - 1 - 7` and `4 - 7 - 1`; `2 - 3` and `3 - 2` are two. Sums
and products are flattened, their terms sorted; nothing is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d+)?)|(?P<power>\*\*|\^)|(?P<operator>//|[-+*/×÷−·()])|(?P<space>\s+)|(?P<other>.)",
    re.DOTALL,
)
SIGNS = {"×": "*", "·": "*", "÷": "/", "−": "-"}


@dataclass(frozen=True)
class Sum:
    """Signed terms: (sign, key of the term), sorted."""

    terms: tuple[tuple[str, str], ...]

    def key(self) -> str:
        if len(self.terms) == 1 and self.terms[0][0] == "+":
            return self.terms[0][1]
        return "(" + "".join(sign + term for sign, term in self.terms) + ")"


def expression_keys(text: str) -> frozenset[str]:
    """Keys of all arithmetic expressions in `text` that have at least one operator between two operands."""
    keys = set()
    for segment in _segments(text):
        position = 0
        while position < len(segment):
            parser = _Parser(segment, position)
            try:
                value = parser.sum()
            except (_NoExpressionError, RecursionError):
                position += 1
                continue
            if parser.binary:
                keys.add(value.key())
            position = max(parser.position, position + 1)
    return frozenset(keys)


def _segments(text: str) -> list[list[str]]:
    """Runs of arithmetic tokens; any other character ends a run. A lone x between two numbers
    multiplies."""
    text = re.sub(r"(?<=\d)\s*[xX]\s*(?=\d)", " * ", text[:20_000])
    segments: list[list[str]] = [[]]
    for match in TOKEN.finditer(text):
        if match.lastgroup == "other":
            segments.append([])
        elif match.lastgroup == "power":
            segments[-1].append("**")
        elif match.lastgroup != "space":
            segments[-1].append(SIGNS.get(match.group(), match.group()))
    return [segment for segment in segments if len(segment) >= 3]


class _NoExpressionError(Exception):
    pass


class _Parser:
    """Recursive descent from one position as far as an expression reaches."""

    def __init__(self, tokens: list[str], position: int) -> None:
        self.tokens = tokens
        self.position = position
        self.binary = False

    def _peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def sum(self) -> Sum:
        terms = list(self._signed("+", self.product()).terms)
        while self._peek() in ("+", "-"):
            sign = self.tokens[self.position]
            right = self._operand(self.product)
            if right is None:
                break
            terms += self._signed(sign, right).terms
        return Sum(tuple(sorted(terms)))

    def product(self) -> Sum:
        first = self.power()
        factors: list[tuple[str, str]] = [("*", first.key())]
        while self._peek() in ("*", "/", "//"):
            sign = self.tokens[self.position]
            right = self._operand(self.power)
            if right is None:
                break
            factors.append((sign, right.key()))
        if len(factors) == 1:
            return first
        # Integer division does not commute with what stands before it.
        ordered = factors if any(sign == "//" for sign, _ in factors) else sorted(factors)
        return Sum((("+", "[" + "".join(sign + factor for sign, factor in ordered) + "]"),))

    def power(self) -> Sum:
        base = self.unary()
        if self._peek() != "**":
            return base
        right = self._operand(self.power)
        return base if right is None else Sum((("+", f"{base.key()}**{right.key()}"),))

    def unary(self) -> Sum:
        token = self._peek()
        self.position += 1
        if token in ("+", "-"):
            return self._signed(token, self.unary())
        if token == "(":
            inner = self.sum()
            if self._peek() != ")":
                raise _NoExpressionError
            self.position += 1
            return inner
        if not token or not token[0].isdigit() or len(token) > 100:
            raise _NoExpressionError
        return Sum((("+", format(Decimal(token).normalize(), "f")),))

    def _operand(self, parse: Callable[[], Sum]) -> Sum | None:
        """What follows an operator; None, and the operator left alone, where nothing does."""
        start = self.position
        self.position += 1
        try:
            value = parse()
        except _NoExpressionError:
            self.position = start
            return None
        self.binary = True
        return value

    @staticmethod
    def _signed(sign: str, value: Sum) -> Sum:
        if sign == "+":
            return value
        return Sum(tuple(sorted(("-" if own == "+" else "+", term) for own, term in value.terms)))
