"""The hybrid agent: a language model says where to look and why, a sampler picks the numbers inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ftagent.agents.prompting import Source
from ftagent.agents.reflection import reflect
from ftagent.agents.space import defaults, tunable
from ftagent.agents.speaker import Speaker
from ftagent.agents.tuning import asking, forms, joint, samplers
from ftagent.agents.tuning.structure import Structure, inside, narrowed, read_structure
from ftagent.agents.tuning.trials import best_of, known_of, plan_of, stopping_files
from ftagent.core.errors import NoUsableReply
from ftagent.core.search_plan import SearchPlan
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
from ftagent.llm.structured import ask
from ftagent.llm.types import Role

MODE = "hybrid"
EVERY = 5
"""Loops from one question about the structure to the next."""


class HybridAgent:
    """Stateless but for its client: the same trace asks the same and gives the same configuration."""

    name = "hybrid"

    def __init__(
        self,
        client: ChatClient,
        plan: SearchPlan,
        templates: Mapping[str, Source] | None = None,
        lessons: Sequence[str] = (),
    ) -> None:
        """As for `LlmAgent` and `JointAgent`. Raises RequestError."""
        samplers.check_sampler(plan)
        self._lessons = tuple(lessons)
        self._speaker = Speaker(client, templates, lambda brief: asking.structure_samples(brief, self._lessons))

    def check(self, brief: Brief) -> None:
        """Render every prompt for sample loops. Raises RequestError with file and line of what a template lacks."""
        self._speaker.check(brief)

    def prompt_tokens(self, brief: Brief) -> dict[Role, int]:
        """Of its one prompt in a first loop, for forecasts."""
        return self._speaker.prompt_tokens(brief, {"propose": forms.StructureReply})

    @staticmethod
    def asking_loops(loops: int) -> int:
        """In how many of `loops` loops the model is asked."""
        return -(-loops // EVERY)

    async def propose(self, brief: Brief, trace: Trace) -> Hypothesis:
        """Raises what `ChatClient.chat` raises."""
        if not tunable(brief):
            return joint.nothing("no parameter is tunable")
        structure, asked_at = _last(trace)
        notes: list[str] = []
        asked = asked_at is None or trace.loop - asked_at >= EVERY
        if asked:
            structure, notes = await self._ask(brief, trace, structure)
        made = self._sampled(brief, trace, structure)
        plan = {**made.plan, "mode": MODE, **({"structure": structure.document()} if asked else {})}
        return replace(made, notes=tuple(notes), plan=plan)

    async def code(self, brief: Brief, trace: Trace, hypothesis: Hypothesis) -> Files:
        return {**brief.render(hypothesis.params), **stopping_files(brief, trace)}

    async def repair(self, brief: Brief, experiment: Experiment, failure: Execution) -> Files:
        """The templates are what they are: the same files say that there is no repair."""
        return experiment.files

    async def reflect(self, brief: Brief, trace: Trace, experiment: Experiment, outcome: Outcome) -> Feedback:
        """From the numbers alone: what the model reads from them it says when it is asked for the next structure."""
        return reflect(brief, trace, experiment, outcome)

    async def _ask(self, brief: Brief, trace: Trace, before: Structure) -> tuple[Structure, list[str]]:
        """The structure of the next loops; the one before where there is no usable answer."""
        asked = asking.to_narrow(brief, trace, self._lessons, before.text(), EVERY)
        try:
            said = await ask(
                self._speaker.client, "propose", CallPlace(trace.loop, "propose"),
                self._speaker.messages("propose", brief, asked, forms.StructureReply), forms.StructureReply,
            )  # fmt: skip
        except NoUsableReply as error:
            kept = "as it was" if before.text() else "whole"
            return before, [f"the model gave no usable structure, the space stays {kept} ({error})"]
        return read_structure(brief, said)

    def _sampled(self, brief: Brief, trace: Trace, structure: Structure) -> Hypothesis:
        known = known_of(brief, trace)
        told = "; ".join(structure.text().splitlines())
        why = f" ({' '.join(structure.why.split()).rstrip('.')})" if told and structure.why else ""
        if not known:
            first = joint.first_trial(brief)
            later = f"; then: {told}{why}" if told else ""
            return replace(first, reason=first.reason + later)
        best = best_of(brief, trace).params
        space, rest = narrowed(brief, structure, best)
        lying = inside(space, structure.fixed, known)
        within, how = (f", in the space that the model narrowed: {told}{why}", "") if told else ("", "")
        found: dict[str, Any] | None
        if lying:
            found = samplers.sample(space, plan_of(brief), trace.direction, lying, trace.seed)
        else:
            found, how = {p.name: p.default for p in space}, "the best configuration, moved inside"
        if found is None and told:  # what was left to the sampler is used up
            space, rest, how = list(tunable(brief)), {}, "the space that the model narrowed has nothing new"
            found, within = samplers.sample(space, plan_of(brief), trace.direction, known, trace.seed), ""
        if found is None:
            return joint.nothing("every configuration was tried")
        params = {name: {**defaults(brief), **rest, **found}[name] for name in defaults(brief)}
        return joint.in_words(brief, trace, params, known, within, how)


def _last(trace: Trace) -> tuple[Structure, int | None]:
    """The structure that holds, and the loop that asked for it; (nothing, None) before the first."""
    loops = [(experiment.loop, experiment.hypothesis) for experiment in trace.experiments]
    loops += [(len(loops) + number, hypothesis) for number, hypothesis in enumerate(trace.pending)]
    for loop, hypothesis in reversed(loops):
        if "structure" in hypothesis.plan:
            return Structure.of(hypothesis.plan["structure"]), loop
    return Structure(), None
