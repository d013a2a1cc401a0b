"""The problems of each optimiser step of group relative policy optimisation, and what rewards their replies."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ftagent.toolkit.batches import plan
from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.data import Problem
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.mapping import Mapper, Mapping, adopt_template
from ftagent.toolkit.models import can_pack, check_generation
from ftagent.toolkit.objectives.grpo import PolicyObjective, PolicySettings, Prompt, repeated
from ftagent.toolkit.objectives.prepared import Prepared, Rows
from ftagent.toolkit.share import Share
from ftagent.toolkit.tokens import stop_tokens
from ftagent.toolkit.verifiers.registry import load_verifier


def check_problems(problems: Sequence[Problem], verifier: str, source: str) -> None:
    """Raises ToolkitError: an unknown verifier, or the first row that it cannot judge."""
    judge = load_verifier(verifier)
    for problem in problems:
        fault = judge.fault(problem)
        if fault:
            raise ToolkitError(f"{source}:{problem.line}: verifier {verifier}: {fault}")


def prepare_problems(model: Any, tokenizer: Any, config: TrainConfig, rows: Rows, share: Share) -> Prepared:
    """Objective, batches and held-out batches. Raises ToolkitError for rows that cannot be encoded."""
    check_generation(model)
    mapping, most = Mapping(config.map_function, config.thinking), config.grpo_max_new_tokens
    prompts = encode_problems(model, tokenizer, rows.train, most, rows.source, mapping)
    held_out = encode_problems(model, tokenizer, rows.held_out, most, rows.held_out_source, mapping)
    order = [item.row for item in plan([1] * len(prompts), config.seed, config.epochs, None)]
    size = config.batch_size * config.gradient_accumulation
    batches = [[prompts[row] for row in order[start : start + size]] for start in range(0, len(order), size)]
    longest = max(len(prompt.ids) for prompt in [*prompts, *held_out]) + config.grpo_max_new_tokens
    objective = PolicyObjective(
        settings_of(config),
        reward_of(config),
        lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)),
        stop_tokens(tokenizer, model),
        config.pack_tokens if can_pack(model, longest) else 0,
        share,
    )
    return Prepared(
        objective,
        repeated(batches, config.grpo_updates),
        [held_out[start : start + config.batch_size] for start in range(0, len(held_out), config.batch_size)],
        {"rows": len(prompts)},
    )


def settings_of(config: TrainConfig) -> PolicySettings:
    """The keys of `config` that say how replies are sampled and learnt from."""
    return PolicySettings(
        group_size=config.grpo_group_size,
        updates=config.grpo_updates,
        kl=config.grpo_kl,
        clip=config.grpo_clip,
        scale_rewards=config.grpo_scale_rewards,
        normalisation=config.grpo_normalisation,
        seed=config.seed,
        max_new_tokens=config.grpo_max_new_tokens,
        temperature=config.grpo_temperature,
        top_p=config.grpo_top_p,
        batch_size=config.batch_size * config.gradient_accumulation * config.grpo_group_size,
        batch_tokens=config.grpo_batch_tokens,
    )


def reward_of(config: TrainConfig) -> Callable[[Problem, str], float]:
    """The verifier's reward, and `grpo_format_weight` more for a reply that is wholly of the form `grpo_format`."""
    verifier = load_verifier(config.verifier)
    if not config.grpo_format:
        return verifier.reward
    form = re.compile(config.grpo_format, re.DOTALL)

    def reward(problem: Problem, output: str) -> float:
        formed = form.fullmatch(output.strip()) is not None
        return verifier.reward(problem, output) + config.grpo_format_weight * formed

    return reward


def encode_problems(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    max_new_tokens: int,
    source: str,
    mapping: Mapping | None = None,
) -> list[Prompt]:
    """Prompts to where the reply begins. Raises ToolkitError with `source` and line, also where prompt and reply would
    be longer than the model takes."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    mapping = mapping or Mapping()
    adopt_template(tokenizer, mapping)
    mapper = Mapper(tokenizer, mapping)
    prompts = []
    for problem in problems:
        ids = mapper.prompt(problem.prompt, f"{source}:{problem.line}")
        if most is not None and len(ids) + max_new_tokens > most:
            raise ToolkitError(
                f"{source}:{problem.line}: {len(ids)} tokens and grpo_max_new_tokens {max_new_tokens} "
                f"exceed the model's {most}"
            )
        prompts.append(Prompt(problem, tuple(ids)))
    return prompts
