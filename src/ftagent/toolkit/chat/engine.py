"""Token by token from one model, keeping what was computed for the next turn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from ftagent.toolkit.cache import new_cache
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.generate import gumbel_noise, sample

PREFILL = 256
"""Tokens of a prompt between two looks at whether to stop."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Temperature 0 is greedy. Raises ToolkitError for values that cannot be."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ToolkitError(f"max_new_tokens {self.max_new_tokens}: must be at least 1")
        if not self.temperature >= 0:
            raise ToolkitError(f"temperature {self.temperature}: must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise ToolkitError(f"top_p {self.top_p}: must be above 0 and at most 1")

    def generator(self, *turn: int) -> Any:
        """Random numbers that depend on the seed and `turn` alone."""
        import torch

        digest = hashlib.sha256("/".join(str(part) for part in (self.seed, *turn)).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


class Engine:
    """A model and the keys and values of the ids in `held`.

    `around` is entered for each forward pass: with the adapters of a PEFT model turned off it is the untuned model.
    `computed` and `reused` count the prompt's tokens of the last `tokens`.
    """

    def __init__(
        self, model: Any, stops: Collection[int], around: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        text = model.config.get_text_config()
        self.model, self.stops, self._around = model, stops, around
        self.limit: int | None = getattr(text, "max_position_embeddings", None)
        kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
        # Other layers keep a state that cannot be taken back to an earlier token.
        self._takes_back = kinds <= {"full_attention", "sliding_attention"}
        self._layers = int(text.num_hidden_layers)
        self._cache: Any = None
        self.held: list[int] = []
        self.computed = self.reused = 0
        self.ended: Literal["stop", "length", "interrupted"] = "stop"

    def tokens(
        self, prompt: Sequence[int], most: int, sampling: Sampling, generator: Any, stopped: Callable[[], bool]
    ) -> Iterator[int]:
        """Up to `most` ids after `prompt`; a stop token ends them and is not among them.

        Nothing more comes once `stopped()`. What ended them is in `ended`: stop, length or interrupted.
        """
        self.ended = "interrupted"
        logits = self._read(prompt, stopped)
        for _ in range(most):
            if logits is None or stopped():
                return
            token = self._choose(logits, sampling, generator)
            if token in self.stops:
                self.ended = "stop"
                return
            yield token
            logits = self._forward([token])
        self.ended = "length"

    def _read(self, prompt: Sequence[int], stopped: Callable[[], bool]) -> Any:
        """Logits after `prompt`; None when stopped before its end."""
        same = next(
            (index for index, (old, new) in enumerate(zip(self.held, prompt, strict=False)) if old != new),
            min(len(self.held), len(prompt)),
        )
        self._keep(min(same, len(prompt) - 1))
        self.reused, self.computed = len(self.held), 0
        logits = None
        for start in range(len(self.held), len(prompt), PREFILL):
            if stopped():
                return None
            piece = list(prompt[start : start + PREFILL])
            logits = self._forward(piece)
            self.computed += len(piece)
        return logits

    def _keep(self, length: int) -> None:
        if self._cache is None or not self._takes_back or length == 0:
            self._cache, self.held = self._empty(), []
            return
        for layer in self._cache.layers:
            layer.length = length
        self.held = self.held[:length]

    def _empty(self) -> Any:
        if self._takes_back:
            return new_cache(self._layers)
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def _forward(self, ids: Sequence[int]) -> Any:
        """Logits of the next token, (1, vocabulary), float32."""
        import torch

        try:
            with torch.inference_mode(), self._around():
                output = self.model(
                    input_ids=torch.tensor([list(ids)], device=self.model.device),
                    past_key_values=self._cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
        except RuntimeError as error:
            # A GPU's is a class of its own, a CPU's is told by its text.
            if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
                raise
            tokens = len(self.held) + len(ids)
            self._cache, self.held = None, []
            raise ToolkitError(f"out of memory at {tokens} tokens of conversation") from error
        self.held += ids
        return output.logits[:, -1].float()

    def _choose(self, logits: Any, sampling: Sampling, generator: Any) -> int:
        if sampling.temperature == 0:
            return int(logits.argmax(dim=-1).item())
        noise = gumbel_noise([generator], logits.shape[1]).to(logits.device)
        return sample(logits, noise, sampling.temperature, sampling.top_p)[0]
