"""What agents with a language model share: the prompts of a run over one client, and reflection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ftagent.agents import asking, replies
from ftagent.agents.asking import Asked
from ftagent.agents.prompting import Prompts, Source, budget_of
from ftagent.agents.reflection import reflect as computed
from ftagent.agents.sections import Count
from ftagent.core.errors import AgentUnavailable, NoUsableReply
from ftagent.core.types import Brief, CallPlace, Experiment, Feedback, Outcome, Trace
from ftagent.llm.client import ChatClient
from ftagent.llm.structured import ask
from ftagent.llm.types import Message, Role

MOST_ABANDONED = 3
"""Loops in a row without a usable proposal; one more stops the run."""
Samples = Callable[[Brief], Iterator[tuple[Role, Asked]]]
"""Made-up steps: every prompt is rendered for them before the first real one."""
Form = type[replies.Reply]


class Speaker:
    """Every method that asks raises what `ChatClient.chat` raises."""

    def __init__(self, client: ChatClient, templates: Mapping[str, Source] | None, samples: Samples) -> None:
        """`templates` override the scenario's and the generic prompts by name."""
        self.client = client
        self._templates = dict(templates or {})
        self._samples = samples
        self._prepared: tuple[Brief, Prompts] | None = None

    def check(self, brief: Brief) -> None:
        """Render every prompt for sample loops. Raises RequestError with file and line of what a template lacks."""
        self._prompts(brief)

    def prompt_tokens(self, brief: Brief, forms: Mapping[Role, Form]) -> dict[Role, int]:
        """Of the prompt of each role in a first loop, for forecasts."""
        sizes: dict[Role, int] = {}
        for role, asked in self._samples(brief):
            if role not in sizes:
                texts = [message.content for message in self.messages(role, brief, asked, forms[role])]
                sizes[role] = sum(self.client.count_tokens(role, text) for text in texts)
        return sizes

    def messages(self, role: Role, brief: Brief, asked: Asked, form: Form) -> list[Message]:
        count = self.counter(role)
        budget = budget_of(self.client.context_tokens(role), form.model_json_schema(), count)
        return self._prompts(brief).messages(
            role, asked.values, asked.sections, budget, count, template=asked.template or role
        )

    def counter(self, role: Role) -> Count:
        return lambda text: self.client.count_tokens(role, text)

    async def reflect(self, brief: Brief, trace: Trace, experiment: Experiment, outcome: Outcome) -> Feedback:
        """What the numbers say and what the model reads from them; the decision is not its own."""
        facts = computed(brief, trace, experiment, outcome)
        if experiment.hypothesis.abandoned:
            return facts
        asked = asking.to_reflect(brief, trace, experiment, outcome, self.counter("reflect"))
        try:
            said = await ask(
                self.client, "reflect", CallPlace(experiment.loop, "feedback"),
                self.messages("reflect", brief, asked, replies.Reflection), replies.Reflection,
            )  # fmt: skip
        except NoUsableReply as error:
            note = f"these observations are computed: the model gave no usable reflection ({error})"
            return Feedback(facts.decision, facts.reason, (*facts.observations, note), facts.next)
        held = {"yes": "the hypothesis held", "no": "the hypothesis did not hold", "unclear": "undecided"}
        causes = [f"{error.category}: {error.cause}" for error in said.error_categories]
        seen = (*facts.observations, *causes, *said.observations, held[said.hypothesis_held])
        return Feedback(facts.decision, facts.reason, tuple(filter(None, map(str.strip, seen))), said.next.strip())

    def _prompts(self, brief: Brief) -> Prompts:
        """The templates of a run, checked once."""
        if self._prepared is None or self._prepared[0] is not brief:
            prompts = Prompts(brief, self._templates)
            for role, asked in self._samples(brief):
                prompts.check(role, asked.values, asked.sections, template=asked.template or role)
            self._prepared = (brief, prompts)
        return self._prepared[1]


def give_up(trace: Trace, error: NoUsableReply) -> None:
    """Raise AgentUnavailable after a few loops in vain. This one is asked for all the same: a run that was stopped so
    goes on with another model."""
    last = [experiment.hypothesis.abandoned for experiment in trace.experiments[-MOST_ABANDONED:]]
    if len(last) == MOST_ABANDONED and all(last):
        raise AgentUnavailable(
            f"no usable proposal in {MOST_ABANDONED + 1} loops in a row ({error}); set another CHAT_MODEL, or another "
            f"propose model in LITELLM_CHAT_MODEL_MAP, and resume; `--from {trace.loop}:propose` asks this one again"
        ) from error
