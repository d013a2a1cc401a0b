"""The agent that writes code: proposes, codes, repairs and reflects with language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftagent.agents import asking, replies
from ftagent.agents.prompting import Source
from ftagent.agents.samples import sample_steps
from ftagent.agents.speaker import Speaker, give_up
from ftagent.agents.views import experiment_of
from ftagent.core import policy
from ftagent.core.errors import NoUsableReply
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
from ftagent.llm.types import Role


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
        self._lessons = tuple(lessons)
        self._options = options or policy.PolicyOptions()
        self._speaker = Speaker(client, templates, lambda brief: sample_steps(brief, self._lessons, self._options))

    def check(self, brief: Brief) -> None:
        """Render every prompt for sample loops. Raises RequestError with file and line of what a template lacks."""
        self._speaker.check(brief)

    def prompt_tokens(self, brief: Brief) -> dict[Role, int]:
        """Of the prompt of each role in a first loop, for forecasts."""
        return self._speaker.prompt_tokens(brief, {
            "propose": replies.proposal_type(brief), "code": replies.coding_type(brief),
            "repair": replies.Repair, "reflect": replies.Reflection,
        })  # fmt: skip

    async def propose(self, brief: Brief, trace: Trace) -> Hypothesis:
        """Raises AgentUnavailable when this is one loop too many in a row without a usable proposal."""
        asked = asking.to_propose(brief, trace, self._lessons, self._options)
        form = replies.proposal_type(brief)
        try:
            proposal = await ask(
                self._client, "propose", CallPlace(trace.loop, "propose"),
                self._speaker.messages("propose", brief, asked, form), form, check=replies.proposal_check(trace),
            )  # fmt: skip
        except NoUsableReply as error:
            give_up(trace, error)
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
            self._client, "code", CallPlace(trace.loop, "code"), self._speaker.messages("code", brief, asked, form),
            form, check=check, files_required=False,
        )  # fmt: skip
        return whole(coding, given)

    async def repair(self, brief: Brief, experiment: Experiment, failure: Execution) -> Files:
        """The files that failed, with those that the model changes."""
        asked = asking.to_repair(brief, experiment, failure, self._speaker.counter("repair"))
        _, files = await ask_files(
            self._client, "repair", CallPlace(experiment.loop, "code", experiment.attempts),
            self._speaker.messages("repair", brief, asked, replies.Repair), replies.Repair,
            check=lambda _, given: replies.check_names(given),
        )  # fmt: skip
        return {**experiment.files, **files}

    async def reflect(self, brief: Brief, trace: Trace, experiment: Experiment, outcome: Outcome) -> Feedback:
        """What the numbers say and what the model reads from them; the decision is not its own."""
        return await self._speaker.reflect(brief, trace, experiment, outcome)
