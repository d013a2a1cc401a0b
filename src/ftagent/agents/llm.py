"""The agent that writes code: proposes, codes, repairs and reflects with language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftagent.agents import asking, replies
from ftagent.agents.asking import Asked
from ftagent.agents.prompting import Prompts, Source, budget_of
from ftagent.agents.reflection import reflect as computed
from ftagent.agents.samples import sample_steps
from ftagent.agents.sections import Count
from ftagent.agents.views import experiment_of
from ftagent.core import policy
from ftagent.core.errors import AgentUnavailable, NoUsableReply
from ftagent.core.types import (
    Brief,
    CallPlace,
    Execution,
    Experiment,
    Feedback,
    Files,
    Hypothesis,
    Outcome,
    Trace,
)
from ftagent.llm.client import ChatClient
from ftagent.llm.structured import ask, ask_files
from ftagent.llm.types import Message, Role

MOST_ABANDONED = 3
"""Loops in a row without a usable proposal; one more stops the run."""


class LlmAgent:
    """Stateless but for its client: the same trace asks the same. It returns words, parameters and files only; what a
    stage may use, see or spend is decided elsewhere.

    Every method raises what `ChatClient.chat` raises; `code` and `repair` raise NoUsableReply.
    """

    name = "llm"

    def __init__(
        self,
        client: ChatClient,
        templates: Mapping[str, Source] | None = None,
        lessons: Sequence[str] = (),
        options: policy.PolicyOptions | None = None,
    ) -> None:
        """`templates` override the scenario's and the generic prompts by name, `lessons` are lines of earlier runs."""
        self._client = client
        self._templates = dict(templates or {})
        self._lessons = tuple(lessons)
        self._options = options or policy.PolicyOptions()
        self._prepared: tuple[Brief, Prompts] | None = None

    def check(self, brief: Brief) -> None:
        """Render every prompt for sample loops. Raises RequestError with file and line of what a template lacks."""
        self._prompts(brief)

    def prompt_tokens(self, brief: Brief) -> dict[Role, int]:
        """Of the prompt of each role in a first loop, for forecasts."""
        sizes: dict[Role, int] = {}
        forms: dict[Role, type[replies.Reply]] = {
            "propose": replies.proposal_type(brief), "code": replies.coding_type(brief),
            "repair": replies.Repair, "reflect": replies.Reflection,
        }  # fmt: skip
        for role, asked in sample_steps(brief, self._lessons, self._options):
            if role not in sizes:
                texts = [message.content for message in self._messages(role, brief, asked, forms[role])]
                sizes[role] = sum(self._client.count_tokens(role, text) for text in texts)
        return sizes

    async def propose(self, brief: Brief, trace: Trace) -> Hypothesis:
        """Raises AgentUnavailable when this is one loop too many in a row without a usable proposal."""
        asked = asking.to_propose(brief, trace, self._lessons, self._options)
        form = replies.proposal_type(brief)
        try:
            proposal = await ask(
                self._client, "propose", CallPlace(trace.loop, "propose"),
                self._messages("propose", brief, asked, form), form, check=replies.proposal_check(trace),
            )  # fmt: skip
        except NoUsableReply as error:
            _give_up(trace, error)
            return Hypothesis("no usable proposal", str(error), abandoned=str(error))
        parent = experiment_of(trace, proposal.parent)
        return Hypothesis(
            title=" ".join(proposal.title.split()),
            reason=proposal.reason.strip(),
            parent=proposal.parent,
            kind=replies.kind_of(proposal, trace),
            expected_effect=proposal.expected_effect.strip(),
            params={**(parent.hypothesis.params if parent else {}), **replies.params_of(proposal)},
            measure=proposal.measure.strip(),
        )

    async def code(self, brief: Brief, trace: Trace, hypothesis: Hypothesis) -> Files:
        """The parent's or, where the model wants them, the templates' files under those that the model writes."""
        asked = asking.to_code(brief, trace, hypothesis, self._lessons)
        form = replies.coding_type(brief)
        parent = experiment_of(trace, hypothesis.parent)

        def whole(coding: replies.Coding, given: Files) -> Files:
            base = parent.files if parent is not None else {}
            if coding.use_template:
                base = brief.render({**hypothesis.params, **replies.params_of(coding)})
            return {**base, **given}

        def check(coding: replies.Coding, given: Files) -> None:
            replies.check_names(given)
            if not given and not coding.use_template:
                raise ValueError("it holds no file; give the files, or use_template: true")
            if missing := [name for name in brief.required_files if name not in whole(coding, given)]:
                raise ValueError(f"{', '.join(missing)}: not given; give it, or use_template: true for a rendered one")

        coding, given = await ask_files(
            self._client, "code", CallPlace(trace.loop, "code"), self._messages("code", brief, asked, form),
            form, check=check, files_required=False,
        )  # fmt: skip
        return whole(coding, given)

    async def repair(self, brief: Brief, experiment: Experiment, failure: Execution) -> Files:
        """The files that failed, with those that the model changes."""
        asked = asking.to_repair(brief, experiment, failure, self._counter("repair"))
        _, files = await ask_files(
            self._client, "repair", CallPlace(experiment.loop, "code", experiment.attempts),
            self._messages("repair", brief, asked, replies.Repair), replies.Repair,
            check=lambda _, given: replies.check_names(given),
        )  # fmt: skip
        return {**experiment.files, **files}

    async def reflect(self, brief: Brief, trace: Trace, experiment: Experiment, outcome: Outcome) -> Feedback:
        """What the numbers say and what the model reads from them; the decision is not its own."""
        facts = computed(brief, trace, experiment, outcome)
        if experiment.hypothesis.abandoned:
            return facts
        asked = asking.to_reflect(brief, trace, experiment, outcome, self._counter("reflect"))
        try:
            said = await ask(
                self._client, "reflect", CallPlace(experiment.loop, "feedback"),
                self._messages("reflect", brief, asked, replies.Reflection), replies.Reflection,
            )  # fmt: skip
        except NoUsableReply as error:
            note = f"these observations are computed: the model gave no usable reflection ({error})"
            return Feedback(facts.decision, facts.reason, (*facts.observations, note), facts.next)
        held = {"yes": "the hypothesis held", "no": "the hypothesis did not hold", "unclear": "undecided"}
        causes = [f"{error.category}: {error.cause}" for error in said.error_categories]
        seen = (*facts.observations, *causes, *said.observations, held[said.hypothesis_held])
        return Feedback(facts.decision, facts.reason, tuple(filter(None, map(str.strip, seen))), said.next.strip())

    def _messages(self, role: Role, brief: Brief, asked: Asked, form: type[replies.Reply]) -> list[Message]:
        count = self._counter(role)
        budget = budget_of(self._client.context_tokens(role), form.model_json_schema(), count)
        return self._prompts(brief).messages(role, asked.values, asked.sections, budget, count)

    def _prompts(self, brief: Brief) -> Prompts:
        """The templates of a run, checked once."""
        if self._prepared is None or self._prepared[0] is not brief:
            prompts = Prompts(brief, self._templates)
            for role, asked in sample_steps(brief, self._lessons, self._options):
                prompts.check(role, asked.values, asked.sections)
            self._prepared = (brief, prompts)
        return self._prepared[1]

    def _counter(self, role: Role) -> Count:
        return lambda text: self._client.count_tokens(role, text)


def _give_up(trace: Trace, error: NoUsableReply) -> None:
    """Raise AgentUnavailable after a few loops in vain. This one is asked for all the same: a run that was stopped so
    goes on with another model."""
    last = [experiment.hypothesis.abandoned for experiment in trace.experiments[-MOST_ABANDONED:]]
    if len(last) == MOST_ABANDONED and all(last):
        raise AgentUnavailable(
            f"no usable proposal in {MOST_ABANDONED + 1} loops in a row ({error}); set another CHAT_MODEL, or another "
            f"propose model in LITELLM_CHAT_MODEL_MAP, and resume; `--from {trace.loop}:propose` asks this one again"
        ) from error
