"""A language model as adviser of the univariate agent: one call for the next value, one to read the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftagent.agents import replies
from ftagent.agents.asking import Asked
from ftagent.agents.prompting import Source
from ftagent.agents.space import tunable
from ftagent.agents.speaker import Speaker, give_up
from ftagent.agents.tuning import asking, forms, rounds
from ftagent.agents.tuning.rounds import Decided, Round
from ftagent.agents.tuning.trials import plan_of
from ftagent.agents.tuning.univariate import Abandoned, Advice, UnivariateAgent
from ftagent.core.errors import NoUsableReply
from ftagent.core.types import Brief, CallPlace, Experiment, Feedback, Outcome, Trace
from ftagent.llm.client import ChatClient
from ftagent.llm.structured import ask
from ftagent.llm.types import Role


class LlmAdviser:
    """Every method raises what `ChatClient.chat` raises."""

    def __init__(
        self, client: ChatClient, templates: Mapping[str, Source] | None = None, lessons: Sequence[str] = ()
    ) -> None:
        """As for `LlmAgent`."""
        self._lessons = tuple(lessons)
        self.speaker = Speaker(client, templates, lambda brief: asking.round_samples(brief, self._lessons))

    async def start(self, brief: Brief, trace: Trace) -> Advice:
        asked = asking.to_start(brief, trace, self._lessons)
        return await self._ask(brief, trace, asked, forms.start_type(tunable(brief), plan_of(brief).keys))

    async def round(self, brief: Brief, trace: Trace, plan: Decided, turn: Round) -> Advice:
        asked = asking.to_round(brief, trace, self._lessons, plan, turn)
        return await self._ask(brief, trace, asked, forms.round_type(rounds.parameter_of(brief, turn.key)))

    async def reflect(self, brief: Brief, trace: Trace, experiment: Experiment, outcome: Outcome) -> Feedback:
        return await self.speaker.reflect(brief, trace, experiment, outcome)

    async def _ask(self, brief: Brief, trace: Trace, asked: Asked, form: type[forms.RoundReply]) -> Advice:
        """Raises Abandoned for replies that stay without the form, AgentUnavailable after too many such loops."""
        try:
            said: Any = await ask(
                self.speaker.client, "propose", CallPlace(trace.loop, "propose"),
                self.speaker.messages("propose", brief, asked, form), form,
            )  # fmt: skip
        except NoUsableReply as error:
            give_up(trace, error)
            raise Abandoned(str(error)) from error
        return Advice(
            said.parameter, said.value, said.reason, said.expected_effect,
            tuple(getattr(said, "keys", ())), getattr(said, "base", None), getattr(said, "why", ""),
        )  # fmt: skip


class LlmUnivariateAgent(UnivariateAgent):
    """`--agent llm` where the brief has a univariate plan."""

    def __init__(self, adviser: LlmAdviser) -> None:
        super().__init__("llm", adviser)
        self._speaker = adviser.speaker

    def check(self, brief: Brief) -> None:
        """Render every prompt for sample loops. Raises RequestError with file and line of what a template lacks."""
        self._speaker.check(brief)

    def prompt_tokens(self, brief: Brief) -> dict[Role, int]:
        """Of the prompt of each role in a first loop, for forecasts."""
        form = forms.start_type(tunable(brief), plan_of(brief).keys)
        return self._speaker.prompt_tokens(brief, {"propose": form, "reflect": replies.Reflection})
