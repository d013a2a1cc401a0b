"""From templates and what is known of a run to the messages that a model gets.

A template is looked for among the user's, then the scenario's, then the generic ones of this package; with
`generic/` or `scenario/` before its name, a template that overrides another one can extend it. Rendering is strict:
what is not defined is an error, found by `Prompts.check` before the first loop.
"""

from __future__ import annotations

import itertools
import json
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from ftagent.agents.sections import Count, Section, fit
from ftagent.core.errors import RequestError
from ftagent.core.types import Brief
from ftagent.llm.types import Message

NAMES = ("system", "task", "propose", "code", "repair", "reflect", "round", "structure")
"""Templates: what a model is told of itself, what all steps share, the four steps, and the propose step of agents that
tune one parameter at a time (`round`) or narrow the space of a sampler (`structure`)."""
SUFFIX = ".jinja"
MAX_PROMPT_TOKENS = 24_000
"""Of one prompt, however large a model's context is: more costs money and attention."""
FORM_TOKENS = 300
"""Of the words that the client adds to the schema of an answer."""
TEXTS = ("role", "loop", "baseline", "leader", "budget", "advice", "hypothesis", "failure", "attempts", "facts",
         "mistakes", "configuration", "structure")  # fmt: skip
SECTIONS = ("space", "details", "files", "failures", "history", "siblings", "changes", "pending", "lessons", "tried")
VARIABLES = frozenset({"brief", *TEXTS, *SECTIONS})
"""What a template may name. All are always defined; what a step does not have is empty."""


@dataclass(frozen=True)
class Source:
    """A template's text and where it comes from, for messages about it."""

    text: str
    origin: str


def templates_in(folder: Path) -> dict[str, Source]:
    """A user's templates: name → source, of each `NAME.jinja` in `folder`.

    Raises RequestError for a folder that cannot be read, for one without a template, and for a name that is none.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
        found = {path.stem: Source(path.read_text(encoding="utf-8"), str(path)) for path in paths}
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"FTAGENT_PROMPTS_PATH: {folder} cannot be read ({error})") from error
    valid = ", ".join(name + SUFFIX for name in NAMES)
    if unknown := [name for name in found if name not in NAMES]:
        raise RequestError(f"{found[unknown[0]].origin}: no prompt has this name; valid: {valid}")
    if not found:
        raise RequestError(f"FTAGENT_PROMPTS_PATH: {folder} holds no template; valid names: {valid}")
    return found


def budget_of(context_tokens: int, schema: Mapping[str, Any], count: Count) -> int:
    """Tokens of a prompt for a model with `context_tokens`, before the client adds the form of the answer."""
    # Half of a small context is for the answer and for talking about what is wrong with it.
    return min(MAX_PROMPT_TOKENS, context_tokens // 2) - count(json.dumps(schema)) - FORM_TOKENS


class Prompts:
    """The templates of one run. Raises RequestError for one that does not parse or names what no prompt has."""

    def __init__(self, brief: Brief, templates: Mapping[str, Source] | None = None) -> None:
        import jinja2

        self._brief = brief
        self._sources = dict(_sources(brief, templates or {}))
        self._environment = jinja2.Environment(
            loader=jinja2.FunctionLoader(self._load),
            undefined=jinja2.StrictUndefined,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for source in dict.fromkeys(self._sources.values()):
            self._undeclared(source)

    def messages(
        self, role: str, values: Mapping[str, str], sections: Sequence[Section], budget: int, count: Count,
        template: str = "",
    ) -> list[Message]:  # fmt: skip
        """The conversation of a step in about `budget` tokens. `sections` in order of importance: each gets the
        longest form that fits. `template`: another one than the role's.

        Sections named `files:…` are joined as `files`. Raises RequestError for a template that does not render.
        """
        shortest = {section.name: section.forms[-1] for section in sections}
        template = template or role
        bare = sum(count(message.content) for message in self._render(role, template, values, shortest))
        room = budget - bare + sum(count(text) for text in shortest.values())
        return self._render(role, template, values, fit(sections, room, count))

    def check(self, role: str, values: Mapping[str, str], sections: Sequence[Section], template: str = "") -> None:
        """Render as `messages` would. Raises RequestError naming file and line of what is wrong."""
        self._render(role, template or role, values, {section.name: section.forms[0] for section in sections})

    def _render(self, role: str, template: str, values: Mapping[str, str], chosen: Mapping[str, str]) -> list[Message]:
        known: dict[str, Any] = dict.fromkeys((*TEXTS, *SECTIONS), "")
        whole = [text for name, text in chosen.items() if name.startswith("files:")]
        known |= {"brief": self._brief, "role": role, **values, **chosen, "files": "\n\n".join(whole)}
        return [
            Message("system", self._text("system", known)),
            Message("user", self._text(template, known)),
        ]

    def _text(self, name: str, values: Mapping[str, Any]) -> str:
        import jinja2

        try:
            return self._environment.get_template(name).render(values).strip() + "\n"
        except jinja2.TemplateNotFound as error:
            raise RequestError(f"{self._place(error, name)}: there is no template {error.name!r}") from error
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError,
                RecursionError) as error:  # fmt: skip
            raise RequestError(f"{self._place(error, name)}: {error}") from error

    def _place(self, error: Exception, name: str) -> str:
        """The template and line in which `error` was raised."""
        origins = {source.origin for source in self._sources.values()}
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in origins]
        return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else self._sources[name].origin

    def _undeclared(self, source: Source) -> None:
        """Raises RequestError for a variable that no prompt has, even where no sample comes to it."""
        import jinja2
        from jinja2 import meta, nodes

        try:
            tree = self._environment.parse(source.text)
            named = meta.find_undeclared_variables(tree)
        except jinja2.TemplateSyntaxError as error:
            raise RequestError(f"{source.origin}:{error.lineno}: {error.message}") from error
        unknown = sorted(named - VARIABLES - self._environment.globals.keys())
        if unknown:
            lines = [found.lineno for found in tree.find_all(nodes.Name) if found.name == unknown[0]]
            valid = ", ".join(sorted(VARIABLES))
            line = min(lines, default=1)
            raise RequestError(f"{source.origin}:{line}: {unknown[0]!r} is undefined; a prompt knows {valid}")

    def _load(self, name: str) -> tuple[str, str, Any] | None:
        source = self._sources.get(name)
        return (source.text, source.origin, lambda: True) if source else None


def _sources(brief: Brief, templates: Mapping[str, Source]) -> Iterable[tuple[str, Source]]:
    """(name, source) of every template under all its names; later ones win."""
    folder = package_files("ftagent.agents") / "prompts"
    generic = {name: Source((folder / (name + SUFFIX)).read_text("utf-8"), f"prompts/{name}{SUFFIX}") for name in NAMES}
    scenario = {
        name: Source(text, f"prompts/{name}{SUFFIX} of scenario {brief.scenario}")
        for name, text in brief.prompts.items()
    }
    return itertools.chain(
        generic.items(),
        ((f"generic/{name}", source) for name, source in generic.items()),
        ((f"scenario/{name}", source) for name, source in {**generic, **scenario}.items()),
        scenario.items(),
        templates.items(),
    )
