"""What a run asked of language models, for people: rows of tables and the report's section."""

from __future__ import annotations

from collections.abc import Mapping

from ftagent.core.state import State
from ftagent.core.usage import Spending, Usage, usage
from ftagent.report.markup import plain, table
from ftagent.report.text import dollars, plural, quantity

HEADER = ("calls", "prompt tokens", "reply tokens", "of them reasoning", "cost")


def cells(some: Spending) -> list[str]:
    """The cells under HEADER."""
    return [
        str(some.calls),
        quantity(some.prompt_tokens),
        quantity(some.completion_tokens),
        quantity(some.reasoning_tokens),
        dollars(some.cost_usd, some.unpriced_calls),
    ]


def one_line(roles: Mapping[str, Spending]) -> str:
    """`propose 1 call, 120 + 40 tokens, $0.0012; code 2 calls, …`."""
    return "; ".join(
        f"{role} {plural(some.calls, 'call')}, {quantity(some.prompt_tokens)} + {quantity(some.completion_tokens)} "
        f"tokens, {dollars(some.cost_usd, some.unpriced_calls)}"
        for role, some in roles.items()
    )


def section(state: State) -> list[str]:
    """The report's section; nothing where no model was asked."""
    used = usage(state)
    if not used.total.calls:
        return []
    lines = ["## Language model", "", *_summary(used, state)]
    rows = [[role, *cells(some)] for role, some in used.by_role.items()]
    lines += table(["role", *HEADER], [*rows, ["all", *cells(used.total)]])
    if len(used.by_model) > 1:
        lines += table(["model", *HEADER], [[plain(name), *cells(some)] for name, some in used.by_model.items()])
    order = sorted(used.by_loop.items(), key=lambda pair: -1 if pair[0] is None else pair[0])
    return [*lines, *table(["loop", *HEADER], [[_name(loop), *cells(some)] for loop, some in order])]


def _name(loop: int | None) -> str:
    return "before" if loop is None else str(loop)


def _summary(used: Usage, state: State) -> list[str]:
    total = used.total
    lines = [f"- Models: {', '.join(plain(name) for name in used.by_model)}."]
    lines.append(f"- {plural(total.calls, 'call')} with {plural(total.requests, 'request')}, failed ones included.")
    if total.cached_tokens:
        lines.append(f"- The providers had {quantity(total.cached_tokens)} of the prompt tokens cached.")
    if used.taken_back_usd:
        lines.append(f"- {dollars(used.taken_back_usd)} more went to loops that were taken back.")
    if state.unpriced_calls:
        lines.append(
            f"- The price of {plural(state.unpriced_calls, 'call')} is unknown, and so is the cost of the run."
        )
    return [*lines, ""]
