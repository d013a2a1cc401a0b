"""Batched generation: length-sorted, left-padded, common beginning computed once, finished rows dropped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftagent.toolkit.cache import keep_rows, new_cache, repeat_cache
from ftagent.toolkit.config import PredictConfig
from ftagent.toolkit.models import attention_kinds, check_generation

DROP_SHARE = 0.8
"""Finished rows leave the batch when at most this share of it is still going: dropping copies the cache."""


@dataclass
class Draft:
    """One output in the making. `id` and `sample` seed its random numbers, whatever batch it is in.

    `stop` is the token that ended it, which `new` does not hold; None where the limit did.
    """

    id: str
    sample: int
    prompt: list[int]
    new: list[int] = field(default_factory=list)
    stop: int | None = None
    generator: Any = None


Finished = Callable[[list[Draft]], None]
"""Receives drafts as they end, without their end-of-turn token."""


def generate(
    model: Any, drafts: Sequence[Draft], stops: Collection[int], config: PredictConfig, finished: Finished
) -> None:
    """Complete every draft: until a stop token, which is not kept, or `config.max_new_tokens`.

    Raises ToolkitError for a model that this cannot compute (`check_generation`).
    """
    import torch

    check_generation(model)
    shared = common_beginning([draft.prompt for draft in drafts])
    with torch.inference_mode():
        beginning = _read_beginning(model, drafts[0].prompt[:shared]) if shared else None
        for batch in batches(drafts, config):
            for draft in batch:
                draft.generator = seeded_generator(config.seed, draft) if config.temperature else None
            _Batch(model, batch, shared, beginning, stops, config, finished).run()
            for draft in batch:
                draft.generator = None  # 2.5 kB each, of which there may be a million


def batches(drafts: Sequence[Draft], config: PredictConfig) -> list[list[Draft]]:
    """Drafts of similar length together, longest first, within `batch_size` rows and `batch_tokens`."""
    result: list[list[Draft]] = []
    width = 0
    for draft in sorted(drafts, key=lambda draft: -len(draft.prompt)):
        if not result or len(result[-1]) == config.batch_size or (len(result[-1]) + 1) * width > config.batch_tokens:
            result.append([])
            width = len(draft.prompt) + config.max_new_tokens
        result[-1].append(draft)
    return result


def common_beginning(prompts: Sequence[list[int]]) -> int:
    """Tokens that all prompts begin with; below every prompt's length. 0 for a single prompt."""
    if len(prompts) < 2:
        return 0
    # The least and the greatest differ no later than any other pair does.
    low, high = min(prompts), max(prompts)
    most = min(len(prompt) for prompt in prompts) - 1
    return next((index for index in range(most) if low[index] != high[index]), most)


def _read_beginning(model: Any, ids: Sequence[int]) -> Any:
    import torch

    cache = new_cache(model.config.get_text_config().num_hidden_layers)
    model(
        input_ids=torch.tensor([ids], device=model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return cache


class _Batch:
    """Rows that are generated together. `visible` (rows, positions) is False on padding."""

    def __init__(
        self, model: Any, drafts: list[Draft], shared: int, beginning: Any,
        stops: Collection[int], config: PredictConfig, finished: Finished,
    ) -> None:  # fmt: skip
        import torch

        self.model, self.drafts, self.stops = model, drafts, stops
        self.config, self.finished = config, finished
        layers = model.config.get_text_config().num_hidden_layers
        self.cache = repeat_cache(beginning, len(drafts)) if shared else new_cache(layers)
        rest = [list(draft.prompt[shared:]) for draft in drafts]
        width = max(len(ids) for ids in rest)
        self.ids = torch.tensor([[0] * (width - len(ids)) + ids for ids in rest], device=model.device)
        padding = torch.tensor([width - len(ids) for ids in rest], device=model.device)
        columns = torch.arange(width, device=model.device)
        self.visible = torch.cat(
            [
                torch.ones(len(drafts), shared, dtype=torch.bool, device=model.device),
                columns[None, :] >= padding[:, None],
            ],
            dim=1,
        )
        self.positions = (shared + columns[None, :] - padding[:, None]).clamp(min=0)
        # Of all that is in the cache: padding lies between the beginning and the rest, so columns are no distances.
        self.places = torch.cat(
            [torch.arange(shared, device=model.device).expand(len(drafts), shared), self.positions], dim=1
        )
        self.kinds = attention_kinds(model)
        self.going = list(range(len(drafts)))

    def run(self) -> None:
        for _ in range(self.config.max_new_tokens):
            tokens = self._choose(self._forward())
            ended = [row for row in self.going if tokens[row] in self.stops]
            self.going = [row for row in self.going if tokens[row] not in self.stops]
            for row in self.going:
                self.drafts[row].new.append(tokens[row])
            for row in ended:
                self.drafts[row].stop = tokens[row]
            if ended:
                self.finished([self.drafts[row] for row in ended])
            if not self.going:
                return
            self._advance(tokens)
        self.finished([self.drafts[row] for row in self.going])

    def _forward(self) -> Any:
        """Logits of the next token, (rows, vocabulary), float32."""
        import torch

        width = self.ids.shape[1]
        total = self.visible.shape[1]
        causal = torch.ones(width, total, dtype=torch.bool, device=self.ids.device).tril(total - width)
        # Padding sees itself: a row of the mask without any position would give not-a-number.
        seen = (self.visible[:, None, :] & causal) | torch.eye(
            width, total, dtype=torch.bool, device=self.ids.device
        ).roll(total - width, dims=1)
        masks = {kind: self._mask(seen, kind) for kind in self.kinds}
        output = self.model(
            input_ids=self.ids, attention_mask=masks if len(masks) > 1 else masks[self.kinds[0]],
            position_ids=self.positions, past_key_values=self.cache, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        return output.logits[:, -1].float()

    def _mask(self, seen: Any, kind: str) -> Any:
        """Additive mask of the layers of `kind`, (rows, 1, width, total). Transformers takes one of four dimensions as
        it is: a window has to be in it."""
        import torch

        if kind == "sliding_attention":
            window = self.model.config.get_text_config().sliding_window
            seen = seen & (self.places[:, None, :] > self.positions[:, :, None] - window)
        mask = torch.zeros(seen.shape, dtype=self.model.dtype, device=seen.device)
        return mask.masked_fill_(~seen, torch.finfo(self.model.dtype).min)[:, None]

    def _choose(self, logits: Any) -> list[int]:
        if self.config.temperature == 0:
            return [int(token) for token in logits.argmax(dim=-1).tolist()]
        noise = gumbel_noise([draft.generator for draft in self.drafts], logits.shape[1])
        return sample(logits, noise.to(logits.device), self.config.temperature, self.config.top_p)

    def _advance(self, tokens: list[int]) -> None:
        import torch

        device = self.ids.device
        self.ids = torch.tensor(tokens, device=device)[:, None]
        self.positions = self.positions[:, -1:] + 1
        self.places = torch.cat([self.places, self.positions], dim=1)
        self.visible = torch.cat([self.visible, self.visible.new_ones(len(tokens), 1)], dim=1)
        if len(self.going) <= DROP_SHARE * len(self.drafts):
            kept = torch.tensor(self.going, device=device)
            keep_rows(self.cache, kept)
            self.ids, self.positions = self.ids[kept], self.positions[kept]
            self.visible, self.places = self.visible[kept], self.places[kept]
            self.drafts = [self.drafts[row] for row in self.going]
            self.going = list(range(len(self.drafts)))


def sample(logits: Any, noise: Any, temperature: float, top_p: float) -> list[int]:
    """One token a row, drawn by the Gumbel-max rule: rounding errors in `logits` almost never change it.

    `logits` and `noise`, from the standard Gumbel distribution, are (rows, vocabulary). `top_p` keeps the fewest
    likeliest tokens whose probabilities reach it.
    """
    import torch

    scaled = logits / temperature
    if top_p < 1:
        ordered, tokens = torch.sort(torch.softmax(scaled, dim=-1), dim=-1, descending=True)
        dropped = ordered.cumsum(dim=-1) - ordered >= top_p
        scaled = scaled.masked_fill(torch.zeros_like(dropped).scatter(-1, tokens, dropped), float("-inf"))
    return [int(token) for token in (scaled + noise).argmax(dim=-1).tolist()]


def gumbel_noise(generators: Sequence[Any], size: int) -> Any:
    """Standard Gumbel noise, (generators, `size`), a row from each generator; the same on every device."""
    import torch

    uniform = torch.stack([torch.rand(size, generator=generator) for generator in generators])
    return -torch.log(-torch.log(uniform.clamp(min=1e-20)))


def seeded_generator(seed: int, draft: Draft) -> Any:
    """A random generator that depends on the seed and the draft alone."""
    import torch

    digest = hashlib.sha256(f"{seed}/{draft.id}/{draft.sample}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
